package readmodel

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/readmodel/term"
)

// pages walks a list and fails on a payment that comes twice.
func pages(t *testing.T, w *world, scope access.Scope, query string) (ids []string) {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFilter(values)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 2000 {
		page, err := w.queries.List(t.Context(), scope, f)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		for _, p := range page.Payments {
			if seen[p.ID] {
				t.Errorf("%s gives %s twice", query, p.ID)
			}
			seen[p.ID] = true
			ids = append(ids, p.ID)
		}
		if page.Next == nil {
			return ids
		}
		// What a cursor carries is all there is to go on from.
		var ok bool
		if f.After, ok = CursorOf(page.Next.Fields()); !ok {
			t.Fatalf("%+v does not come back", page.Next)
		}
	}
	t.Fatal("the list has no end")
	return nil
}

// Every combination of filters, sort and search gives what sorting everything in
// memory gives, to a merchant and to who sees all.
func TestEveryListIsWhatTheWholeTableSays(t *testing.T) {
	w := newWorld(t)
	merchants := []string{w.merchant(), w.merchant(), w.merchant()}
	random := rand.New(rand.NewPCG(7, 7))
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	all := map[string]Payment{}
	for i := range 150 {
		o := w.order(merchants[min(random.IntN(6), 2)])
		batch := w.apply
		amount := int64(random.IntN(4) + 1)
		batch(o.placed(func(p *payment.PlacedData) {
			p.Amount, p.Lines[0].UnitAmount, p.Lines[0].Quantity = amount, amount, 1
			p.Currency, p.PaymentMethod = one("EUR", "USD"), one("pm_a", "pm_b")
			p.Customer.Reference, p.Reference = one("Ada", "ada lovelace", "Bob 1"), fmt.Sprintf("A-%d", i%40)
		}))
		if random.IntN(3) == 0 {
			batch(o.event(payment.EventOrderFailed, payment.StatusFailed, func(d *payment.EventData) {
				d.Failure = &payment.Failure{Code: one("no", "never"), Step: "reserve_stock", Message: "No."}
			}))
		} else if random.IntN(2) == 0 {
			batch(o.event(payment.EventOrderCanceled, payment.StatusCanceled, nil))
		}
		all[o.ids.PaymentID] = w.get(o)
	}
	for range 250 {
		var query []string
		keep := func(Payment) bool { return true }
		and := func(parameter string, more func(Payment) bool) {
			query = append(query, parameter)
			before := keep
			keep = func(p Payment) bool { return before(p) && more(p) }
		}
		sometimes := func(n int) bool { return random.IntN(n) == 0 }
		if sometimes(3) {
			a, b := payment.StatusFailed, payment.Status(one("processing", "canceled"))
			and("status="+string(a)+","+string(b), func(p Payment) bool { return p.Status == a || p.Status == b })
		}
		if sometimes(4) {
			v := one("EUR", "USD")
			and("currency="+v, func(p Payment) bool { return p.Currency == v })
		}
		if sometimes(4) {
			v := one("pm_a", "pm_b")
			and("payment_method="+v, func(p Payment) bool { return p.PaymentMethod == v })
		}
		if sometimes(6) {
			v := one("no", "never")
			and("failure_code="+v, func(p Payment) bool { return p.Failure != nil && p.Failure.Code == v })
		}
		if sometimes(5) {
			v := int64(random.IntN(4) + 1)
			and(fmt.Sprintf("amount_min=%d", v), func(p Payment) bool { return p.Amount >= v })
		}
		if sometimes(4) {
			at := w.clock.Add(-time.Duration(random.IntN(200)) * time.Second).Truncate(time.Second)
			and("created_from="+url.QueryEscape(at.Format(time.RFC3339)), func(p Payment) bool { return !p.CreatedAt.Before(at) })
		}
		scope, who := operator(t), "everybody"
		switch random.IntN(3) {
		case 0:
			who = one(merchants...)
			scope = merchant(t, who)
			and("limit=7", func(p Payment) bool { return p.MerchantID == who })
		case 1:
			who := one(merchants...)
			and("merchant="+who, func(p Payment) bool { return p.MerchantID == who })
		default:
			query = append(query, "limit="+one("1", "3", "50"))
		}
		less := func(a, b Payment) int { return strings.Compare(b.ID, a.ID) }
		switch random.IntN(6) {
		case 0, 1:
			q := term.Fold(one("a", "A-1", "1", "ada", "ada l", "Lovelace", "bob", "z"))
			first := func(p Payment) string { return term.First(q, p.OrderReference, p.CustomerReference) }
			and("q="+url.QueryEscape(q), func(p Payment) bool { return first(p) != "" })
			less = func(a, b Payment) int {
				if c := strings.Compare(first(a), first(b)); c != 0 {
					return c
				}
				return strings.Compare(b.ID, a.ID)
			}
		case 2:
			query = append(query, "sort=created_at")
			less = func(a, b Payment) int { return strings.Compare(a.ID, b.ID) }
		case 3, 4:
			sign, sort := 1, "amount"
			if sometimes(2) {
				sign, sort = -1, "-amount"
			}
			query = append(query, "sort="+sort)
			less = func(a, b Payment) int {
				if a.Amount != b.Amount {
					return sign * int(a.Amount-b.Amount)
				}
				return sign * strings.Compare(a.ID, b.ID)
			}
		}
		var want []Payment
		for _, p := range all {
			if keep(p) {
				want = append(want, p)
			}
		}
		slices.SortFunc(want, less)
		var wanted []string
		for _, p := range want {
			wanted = append(wanted, p.ID)
		}
		asked := strings.Join(query, "&")
		if got := pages(t, w, scope, asked); !slices.Equal(got, wanted) {
			t.Fatalf("%s to %s:\ngot  %q\nwant %q", asked, who, got, wanted)
		}
		values, err := url.ParseQuery(asked + "&count=estimated")
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFilter(values)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := w.queries.Count(t.Context(), scope, f); err != nil || n.Exact && n.Value != int64(len(wanted)) {
			t.Fatalf("%s to %s: counted %+v (%v), want %d", asked, who, n, err, len(wanted))
		}
	}
}

func TestExpansionsAreEachPaymentsOwn(t *testing.T) {
	w := newWorld(t)
	m := w.merchant()
	var payments []Payment
	for range 3 {
		o := w.order(m)
		w.apply(o.succeeded()...)
		w.apply(o.refunds(w.ids.New(payment.PrefixRefund), w.ids.New(payment.PrefixRefund))...)
		payments = append(payments, w.get(o))
	}
	expanded, err := w.queries.Expand(t.Context(), payments, Expand{Timeline: true, Refunds: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range payments {
		entries, err := w.queries.Timeline(t.Context(), merchant(t, m), p.ID, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		refunds, err := w.queries.Refunds(t.Context(), merchant(t, m), p.ID, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "expanded", expanded[p.ID], Expanded{Timeline: entries, Refunds: refunds})
		one, err := w.queries.Refunds(t.Context(), merchant(t, m), p.ID, refunds[0].ID, 1)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "the second page", one, refunds[1:])
	}
}
