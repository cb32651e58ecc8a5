package order_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/order"
	"payments/internal/payment"
)

func unpaced(ctx context.Context) error { return ctx.Err() }

// compared is CompareRange of the last hours, with what it found as kind, sorted.
func (w *stripeWorld) compared(r order.RangeComparison) ([]string, order.RangeResult, error) {
	w.t.Helper()
	if r.From.IsZero() {
		r.From, r.To = time.Now().Add(-90*time.Minute), time.Now().Add(time.Minute)
	}
	if r.Pause == nil {
		r.Pause = unpaced
	}
	found := []string{}
	r.Found = func(d order.Difference) error {
		found = append(found, fmt.Sprint(d.Kind, " ", d.Followed))
		return nil
	}
	result, err := w.orders.CompareRange(w.t.Context(), r)
	slices.Sort(found)
	return found, result, err
}

// No notification came: a comparison of the range finds each difference, goes on where
// it was stopped, and lets the books follow.
func TestARangeIsComparedWithTheProvider(t *testing.T) {
	w := newStripeWorld(t)
	w.server.SetPageSize(2)
	var won []string
	for range 5 {
		won = append(won, w.placed("pm_card_visa", ""))
	}
	awaiting, held := w.placed("pm_card_visa", payment.CaptureManual), w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	if _, err := w.refund(t.Context(), won[0], nil); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if found, result, err := w.compared(order.RangeComparison{}); err != nil || len(found) != 0 || result.Payments < 7 {
		t.Fatalf("of %d payments differ %v, %v", result.Payments, found, err)
	}

	w.account.FailRefund(w.account.Refunds("")[0].ID, "declined")
	w.account.RefundOutside(w.charge(won[1]), 100)
	w.account.OpenDispute(w.charge(won[2]), 0, "fraudulent", time.Now().Add(time.Hour))
	w.account.Expire(w.intent(awaiting))
	want := []string{"authorization_expired", "disputed", "refund_failed_later", "refund_outside"}
	of := func(followed bool) (all []string) {
		for _, kind := range want {
			all = append(all, fmt.Sprint(kind, " ", followed))
		}
		return all
	}
	if found, _, err := w.compared(order.RangeComparison{}); err != nil || !slices.Equal(found, of(false)) {
		t.Errorf("found %v, %v", found, err)
	}
	if refunded, _ := w.amounts(won[0]); refunded != 4998 {
		t.Error("a comparison has changed the books")
	}

	// It is stopped again and again, and finds everything once.
	stop := errors.New("stopped")
	var all []string
	var counted int64
	from, to := time.Now().Add(-90*time.Minute), time.Now().Add(time.Minute)
	cursor, rounds := "", 0
	for ; ; rounds++ {
		if rounds > 50 {
			t.Fatal("the comparison does not come to its end")
		}
		next := ""
		found, result, err := w.compared(order.RangeComparison{From: from, To: to, Cursor: cursor, Reached: func(c string) error {
			next = c
			return stop
		}})
		all, counted = append(all, found...), counted+result.Differences
		if err == nil {
			break
		}
		if !errors.Is(err, stop) || next == cursor {
			t.Fatalf("after %q came %q: %v", cursor, next, err)
		}
		cursor = next
	}
	slices.Sort(all)
	if all = slices.Compact(all); !slices.Equal(all, of(false)) || rounds < 4 {
		t.Errorf("in %d rounds were found %v", rounds, all)
	}

	if found, _, err := w.compared(order.RangeComparison{Follow: true}); err != nil || !slices.Equal(found, of(true)) {
		t.Errorf("followed %v, %v", found, err)
	}
	w.settle()
	w.wantStatus(awaiting, "canceled")
	w.wantStatus(held, "requires_capture")
	if found, _, err := w.compared(order.RangeComparison{}); err != nil || len(found) != 0 {
		t.Errorf("after the books have followed differ %v, %v", found, err)
	}
	w.agrees(won[0])
	for _, bad := range []string{"x", "1/list/", "9999999999999/list/", "1/2/3"} {
		if _, _, err := w.compared(order.RangeComparison{Cursor: bad}); err == nil {
			t.Errorf("the cursor %q was taken", bad)
		}
	}
}

// With the key of another account the provider knows none of our payments: nothing of
// the books changes, and no payment counts as compared.
func TestARangeComparedWithAnotherAccountChangesNothing(t *testing.T) {
	w := newStripeWorld(t)
	w.server.Account("sk_test_b")
	id, awaiting := w.placed("pm_card_visa", ""), w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.use("sk_test_b")
	found, result, err := w.compared(order.RangeComparison{Follow: true})
	if err != nil || len(found) != 0 || result != (order.RangeResult{OtherAccounts: 2}) {
		t.Errorf("found %v, %+v, %v", found, result, err)
	}
	w.use("sk_test_a")
	w.wantStatus(awaiting, "requires_capture")
	w.wantChanges(id)
	w.wantChanges(awaiting)
	w.agrees(id)
}

// One process compares the last days at its time; the others tell what it found.
func TestTheScheduledComparison(t *testing.T) {
	w := newStripeWorld(t)
	id := w.placed("pm_card_visa", "")
	w.settle()
	w.account.RefundOutside(w.charge(id), 500)
	now := time.Now().Add(20 * time.Minute) // what is younger than ten minutes is left out
	config := func(reg *prometheus.Registry) order.ReconcilerConfig {
		return order.ReconcilerConfig{
			Interval: time.Hour, Days: 1, Pause: unpaced, Heartbeat: func() {}, Now: func() time.Time { return now },
			Log: slog.New(slog.DiscardHandler), Registerer: reg,
		}
	}
	regs := []*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	var both []*order.Reconciler
	for _, reg := range regs {
		r, err := order.NewReconciler(w.orders, config(reg))
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, r)
	}
	if got := gauge(t, regs[0], "payments_provider_differences"); !math.IsNaN(got) {
		t.Errorf("before the first comparison %v differences are told", got)
	}
	turn := func(r *order.Reconciler) {
		t.Helper()
		for again := true; again; {
			var err error
			if again, err = r.RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	turn(both[0])
	turn(both[1])
	for i, reg := range regs {
		if d, open := gauge(t, reg, "payments_provider_differences"), gauge(t, reg, "payments_provider_changes_open"); d != 1 || open != 1 {
			t.Errorf("process %d tells of %v differences and %v open changes", i, d, open)
		}
	}
	if refunded, _ := w.amounts(id); refunded != 500 {
		t.Errorf("%d are refunded", refunded)
	}
	w.account.RefundOutside(w.charge(id), 100)
	turn(both[1])
	if refunded, _ := w.amounts(id); refunded != 500 {
		t.Error("it compared again before its time")
	}
	now = now.Add(2 * time.Hour)
	turn(both[1])
	turn(both[0])
	if refunded, _ := w.amounts(id); refunded != 600 {
		t.Errorf("%d are refunded after the next comparison", refunded)
	}
	w.agrees(id)
}

// gauge is the sum of the gauge's series, and not a number when it has none.
func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	sum := math.NaN()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			sum = 0
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// An operator takes note of a change once; news of it opens it again.
func TestAnOperatorAcceptsAChange(t *testing.T) {
	w := newStripeWorld(t)
	id := w.placed("pm_card_visa", "")
	w.hear()
	disputed := w.account.OpenDispute(w.charge(id), 0, "fraudulent", time.Now().Add(time.Hour))
	w.hear()
	operations := w.orders.Operations()
	open, err := operations.Changes(t.Context(), "open", "", 10)
	if err != nil || len(open) != 1 || open[0].PaymentID != id || open[0].Subject != disputed {
		t.Fatalf("open are %+v, %v", open, err)
	}
	var refused *payment.Error
	if _, err := operations.AcceptChange(t.Context(), ada, w.ids.New(payment.PrefixChange)); !errors.As(err, &refused) || refused.Code != payment.CodeNotFound {
		t.Errorf("a change that does not exist: %v", err)
	}
	if _, err := operations.AcceptChange(t.Context(), order.By{Operator: "k", Holder: "ada", Reason: " "}, open[0].ID); !errors.As(err, &refused) || refused.Code != payment.CodeInvalid {
		t.Errorf("without a reason: %v", err)
	}
	for range 2 {
		c, err := operations.AcceptChange(t.Context(), ada, open[0].ID)
		if err != nil || c.State != "accepted" || *c.Holder != "ada" {
			t.Errorf("accepted: %+v, %v", c, err)
		}
	}
	if open, err = operations.Changes(t.Context(), "open", "", 10); err != nil || len(open) != 0 {
		t.Errorf("open are %+v, %v", open, err)
	}
	w.account.CloseDispute(disputed, "lost")
	w.hear()
	if open, err = operations.Changes(t.Context(), "open", "", 10); err != nil || len(open) != 1 {
		t.Errorf("after news of it, open are %+v, %v", open, err)
	}
	if all, err := operations.Changes(t.Context(), "", "", 10); err != nil || len(all) != 1 {
		t.Errorf("all are %+v, %v", all, err)
	}
}
