package readmodel

import (
	"context"
	"errors"
	"testing"
	"time"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// A merchant walks each of its lists while about a thousand payments a second come, of
// which many are its own: none comes twice, and none is missed that was there at the start.
func TestAWalkBesideAThousandPaymentsASecond(t *testing.T) {
	w := newWorld(t)
	m := w.merchant()
	there := map[string]bool{}
	for range 20 {
		var batch []inbox.Message
		for range 50 {
			o := w.order(m)
			batch = append(batch, o.placed())
			there[o.ids.PaymentID] = true
		}
		w.apply(batch...)
	}
	scope := merchant(t, m)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() { // a hundred at a time, ten times a second, and more than that never
		pace := time.NewTicker(100 * time.Millisecond)
		defer pace.Stop()
		n := 0
		defer func() { ended <- n }()
		for ctx.Err() == nil {
			var batch []inbox.Message
			for i := range 100 {
				owner := m
				if i%2 == 1 {
					owner = w.merchant()
				}
				batch = append(batch, w.order(owner).placed())
			}
			done, err := w.inbox.Apply(ctx, 1, batch)
			n += done
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("insert: %v", err)
				}
				return
			}
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
	}()
	// Until at least this many came beside.
	inserted := func() (n int) {
		if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM payment_view`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n - len(there)
	}
	lists := []Filter{
		{Limit: 7}, {Limit: 7, Sort: Sort{Ascending: true}}, {Limit: 7, Sort: Sort{ByAmount: true}}, {Limit: 7, Customer: []string{"cust-42"}},
		{Limit: 7, Statuses: []payment.Status{payment.StatusProcessing, payment.StatusFailed}}, {Limit: 7, Search: "cust"},
	}
	began := time.Now()
	for _, f := range lists {
		before := inserted()
		seen := map[string]bool{}
		for pages := 0; ; pages++ {
			page, err := w.queries.List(t.Context(), scope, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range page.Payments {
				if seen[p.ID] {
					t.Errorf("%+v gives %s twice", f, p.ID)
				}
				seen[p.ID] = true
			}
			// What comes in the end is walked as well where it lies ahead: not for ever.
			if f.After = page.Next; f.After == nil || pages > 2000 {
				break
			}
		}
		for id := range there {
			if !seen[id] {
				t.Errorf("%+v misses %s, which was there", f, id)
			}
		}
		for inserted() == before { // the walk was not alone
			if ctx.Err() != nil {
				t.Fatal(errors.New("nothing was inserted"))
			}
		}
	}
	stop()
	n := <-ended
	t.Logf("%d payments came beside %d walks, %.0f a second", n, len(lists), float64(n)/time.Since(began).Seconds())
}
