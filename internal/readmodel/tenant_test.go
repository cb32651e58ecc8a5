package readmodel

import (
	"errors"
	"slices"
	"testing"

	"payments/internal/payment"
)

// The scope is taken away: every query may see all. Row-level security alone still
// shows a merchant nothing of another's.
func TestRowLevelSecurityAloneHoldsTheTenants(t *testing.T) {
	w := newWorld(t)
	mine, theirs := w.order(w.merchant()), w.order(w.merchant())
	w.apply(mine.succeeded()...)
	w.apply(theirs.succeeded()...)
	ctx := merchant(t, mine.ids.MerchantID).Bound(t.Context())
	unscoped := operator(t)

	if p, err := w.queries.Get(ctx, unscoped, mine.ids.PaymentID); err != nil || p.ID != mine.ids.PaymentID {
		t.Errorf("its own: %+v, %v", p, err)
	}
	page, err := w.queries.List(ctx, unscoped, Filter{})
	if err != nil || !slices.Equal(ids(page), []string{mine.ids.PaymentID}) {
		t.Errorf("list: %v, %v", ids(page), err)
	}
	if page, err = w.queries.List(ctx, unscoped, Filter{Search: "cust"}); err != nil || !slices.Equal(ids(page), []string{mine.ids.PaymentID}) {
		t.Errorf("search: %v, %v", ids(page), err)
	}
	entries, err := w.queries.Timeline(ctx, unscoped, mine.ids.PaymentID, 0, 1000)
	if err != nil || len(entries) != 5 {
		t.Errorf("timeline: %d, %v", len(entries), err)
	}
	notFound := func(what string, err error) {
		t.Helper()
		if e, ok := errors.AsType[*payment.Error](err); !ok || e.Code != payment.CodeNotFound {
			t.Errorf("%s of another's: %v", what, err)
		}
	}
	id := theirs.ids.PaymentID
	_, err = w.queries.Get(ctx, unscoped, id)
	notFound("get", err)
	_, err = w.queries.Timeline(ctx, unscoped, id, 0, 1000)
	notFound("timeline", err)
	_, err = w.queries.Refunds(ctx, unscoped, id, "", 10)
	notFound("refunds", err)

	// Without a bound they are all there: it was the wall that held.
	if page, err := w.queries.List(t.Context(), unscoped, Filter{}); err != nil || len(page.Payments) != 2 {
		t.Errorf("unbounded list: %v, %v", ids(page), err)
	}
}

func ids(p Page) (all []string) {
	for _, v := range p.Payments {
		all = append(all, v.ID)
	}
	return all
}

// BenchmarkListRowLevelSecurity reads a page of a merchant's payments.
func BenchmarkListRowLevelSecurity(b *testing.B) {
	w := newWorld(b)
	m := w.merchant()
	for range 200 {
		w.apply(w.order(m).placed())
	}
	scope := merchant(b, m)
	for name, ctx := range map[string]func() bool{"bounded": func() bool { return true }, "unbounded": func() bool { return false }} {
		b.Run(name, func(b *testing.B) {
			c := b.Context()
			if ctx() {
				c = scope.Bound(c)
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := w.queries.List(c, scope, Filter{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
