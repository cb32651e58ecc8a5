package order_test

import (
	"testing"
	"time"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider"
)

// The account at the provider changes for good, while one payment is authorized there, one is
// captured, and two have not begun. The new account makes what has not begun. What the old one
// has made waits until a process of the former account is there, and ends by that process
// alone. Books and audits agree with both accounts.
func TestTheAccountChangesForGood(t *testing.T) {
	w := newStripeWorld(t)
	next := w.server.Account("sk_test_b")
	held, taken := w.placed("pm_card_visa", payment.CaptureManual), w.placed("pm_card_visa", "")
	w.hear()
	old, oldBooks := w.orders, w.books
	config := w.config

	w.use("sk_test_b")
	newBooks := w.books
	fresh := w.placed("pm_card_visa", "")
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, held)) })
	half := int64(2000)
	if _, err := w.refund(t.Context(), taken, &half); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.wantStatus(fresh, "succeeded")
	w.wantStatus(held, "requires_capture")
	w.wantStatus(taken, "succeeded")
	if refunded, refunding := w.amounts(taken); refunded != 0 || refunding != half {
		t.Errorf("%d are refunded and %d are being refunded", refunded, refunding)
	}
	for _, definition := range []string{"order_manual_capture", "refund"} {
		if got := one[string](w.world, `SELECT coalesce(waits_for, 'nothing') FROM sagas WHERE definition = $1 AND due_at IS NOT NULL`, definition); got != old.Account() {
			t.Errorf("the saga %s waits for %s, not for %s", definition, got, old.Account())
		}
	}
	w.books = newBooks
	w.audited()

	// A process of the former account runs beside those of the new one. Each of the two has
	// turns.
	config.Former = true
	former := order.New(config)
	if _, err := former.LearnAccount(t.Context()); err != nil {
		t.Fatal(err)
	}
	formerWorker := w.workerOf(former)
	untouched := w.placed("pm_card_visa", "") // it has not begun
	turn := func() {
		if _, err := formerWorker.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		formerWorker.Drain()
	}
	turn()
	if n := w.count(`SELECT count(*) FROM sagas s JOIN payments p ON s.subject = p.order_id WHERE p.id = $1 AND s.attempts = 0 AND s.epoch = 0`, untouched); n != 1 {
		t.Error("the process of the former account has begun a payment")
	}
	w.settle()
	for w.count(`SELECT count(*) FROM sagas WHERE due_at IS NOT NULL AND definition <> 'orphan_void'`) > 0 {
		turn()
		w.turn()
	}
	w.wantStatus(held, "succeeded")
	w.wantStatus(untouched, "succeeded")
	if refunded, refunding := w.amounts(taken); refunded != half || refunding != 0 {
		t.Errorf("%d are refunded and %d are being refunded", refunded, refunding)
	}
	for id, account := range map[string]string{held: old.Account(), taken: old.Account(), fresh: w.orders.Account(), untouched: w.orders.Account()} {
		if got := one[string](w.world, `SELECT provider_account FROM payments WHERE id = $1`, id); got != account {
			t.Errorf("%s was made with %s, not with %s", id, got, account)
		}
	}
	if got := next.Refunded(); got != 0 {
		t.Errorf("%d were refunded in the new account", got)
	}

	// Each account's books agree with its own payments, and say which were left out.
	for name, orders := range map[string]*order.Service{"former": former, "new": w.orders} {
		result, err := orders.CompareRange(t.Context(), order.RangeComparison{
			From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Minute), Pause: order.Pace(1000),
			Found: func(d order.Difference) error {
				t.Errorf("%s account: %s differs: %s %s", name, d.PaymentID, d.Kind, d.Detail)
				return nil
			},
		})
		if err != nil || result.Payments == 0 || result.OtherAccounts != 2 {
			t.Errorf("%s account: %+v, %v", name, result, err)
		}
	}
	for _, books := range []provider.Inspector{oldBooks, newBooks} {
		w.books = books
		w.audited()
	}

	// The process of the former account did not make that the account in use.
	if use, err := order.New(w.config).LearnAccount(t.Context()); err != nil || use.Before != "" {
		t.Errorf("after a process of the former account: %+v, %v", use, err)
	}
}
