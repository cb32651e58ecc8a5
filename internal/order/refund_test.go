package order_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"sync"
	"testing"

	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
)

func (w *world) refund(ctx context.Context, id string, amount *int64) (string, error) {
	r, err := payment.NewRefund(amount, "returned")
	if err != nil {
		return "", err
	}
	resp, _, err := w.orders.Refund(ctx, idempotency.Request{MerchantID: w.merchant, Key: rand.Text()}, id, r,
		func(r order.Refunding) (idempotency.Response, error) { return answer(r.ID), nil })
	return resp.ResourceID, err
}

func (w *world) amounts(id string) (refunded, refunding int64) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), `SELECT amount_refunded, amount_refunding FROM payments WHERE id = $1`, id).Scan(&refunded, &refunding); err != nil {
		w.t.Fatal(err)
	}
	return refunded, refunding
}

func TestFiftyRefundsOfAThirdLeaveThree(t *testing.T) {
	w := newWorld(t)
	id, third := w.placed("pm_card_visa", ""), int64(2*2499/3)
	w.settle()
	var group sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	// All that the pool has connections for have begun before the first may write.
	gate, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gate.Exec(t.Context(), `SELECT FROM orders FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		group.Go(func() {
			_, err := w.refund(t.Context(), id, &third)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				accepted++
			} else if refusal(t, err).Code != payment.CodeRefundExceeds {
				t.Error(err)
			}
		})
	}
	for waiting := 0; waiting < 10; {
		err := gate.QueryRow(t.Context(), `
			SELECT count(*) FROM pg_stat_clear_snapshot(), pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := gate.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	w.settle()
	if refunded, refunding := w.amounts(id); accepted != 3 || refunded != 3*third || refunding != 0 {
		t.Errorf("%d accepted, %d refunded, %d under way", accepted, refunded, refunding)
	}
	if got := w.ledger(id); len(got) != 5 || slices.Contains(got, "refund:declined") {
		t.Errorf("the bank did %v", got)
	}
	if s := w.status(id); s != "succeeded" {
		t.Errorf("a refund leaves it succeeded, not %s", s)
	}
	w.audited()
}

func TestARefundEndsWhateverTheProviderDoes(t *testing.T) {
	for _, kind := range []string{"error", "timeout_applied", "timeout_lost", "late_applied", "slow", "outage"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			id := w.placed("pm_card_visa", "")
			w.settle()
			w.fault(`{"kind": "` + kind + `", "operation": "refund", "latency_ms": 200, "seconds": 1}`)
			if _, err := w.refund(t.Context(), id, nil); err != nil {
				t.Fatal(err)
			}
			w.settle()
			if refunded, refunding := w.amounts(id); refunded != 2*2499 || refunding != 0 {
				t.Errorf("%d refunded, %d under way", refunded, refunding)
			}
			if got, want := w.events(id)[5:], []string{"refund.requested", "refund.succeeded"}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			w.audited()
		})
	}
}

func TestARefusedRefundGivesItsAmountBack(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	w.settle()
	// Somebody has given the money back at the bank's counter.
	w.requestWith("counter", http.MethodPost, "/v1/refunds", `{"reference": "`+id+`", "capture": "`+
		one[string](w, `SELECT capture_reference FROM payments WHERE id = $1`, id)+`", "amount": 4998, "currency": "EUR"}`, http.StatusCreated)
	if _, err := w.refund(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := one[string](w, `SELECT status || ' ' || failure_code FROM refunds`); got != "failed refund_exceeds_capture" {
		t.Errorf("the refund is %s", got)
	}
	if refunded, refunding := w.amounts(id); refunded != 0 || refunding != 0 {
		t.Errorf("%d refunded, %d under way", refunded, refunding)
	}
	if got, want := w.events(id)[5:], []string{"refund.requested", "refund.failed"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// An operator may cancel a refund that has not been sent: it fails, and what it
// took is left to refund again.
func TestACanceledRefundGivesItsAmountBack(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	w.settle()
	refund, err := w.refund(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.act(ada, one[string](w, `SELECT id FROM sagas WHERE subject = $1`, refund), "cancel", order.Verdict{}, "")
	w.settle()
	if got := one[string](w, `SELECT status || coalesce(' ' || failure_code, '') FROM refunds`); got != "failed canceled" {
		t.Errorf("the refund is %s", got)
	}
	if refunded, refunding := w.amounts(id); refunded != 0 || refunding != 0 {
		t.Errorf("%d refunded, %d under way", refunded, refunding)
	}
	if got, want := w.events(id)[5:], []string{"refund.requested", "refund.failed"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := w.refund(t.Context(), id, nil); err != nil {
		t.Errorf("asked again: %v", err)
	}
	w.settle()
	w.audited()
}

func TestWhatCannotBeRefunded(t *testing.T) {
	w := newWorld(t)
	much, none := int64(2*2499+1), int64(0)
	open, lost, won := w.placed("pm_card_visa", payment.CaptureManual), w.placed("pm_card_declined", ""), w.placed("pm_card_visa", "")
	w.settle()
	for _, c := range []struct {
		id     string
		amount *int64
		code   payment.Code
	}{
		{open, nil, payment.CodeActionNotAllowed}, {lost, nil, payment.CodeActionNotAllowed},
		{won, &much, payment.CodeRefundExceeds}, {won, &none, payment.CodeInvalid},
		{w.ids.New(payment.PrefixPayment), nil, payment.CodeNotFound},
	} {
		if _, err := w.refund(t.Context(), c.id, c.amount); refusal(t, err).Code != c.code {
			t.Errorf("got %v, want %s", err, c.code)
		}
	}
	if n := w.count(`SELECT count(*) FROM refunds`); n != 0 {
		t.Errorf("%d refunds were written", n)
	}
}
