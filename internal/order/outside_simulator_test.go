package order_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
)

// notified hands a notification over as the receiver of webhooks does.
func (w *world) notified(n provider.Notification) {
	w.t.Helper()
	if err := postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error { return w.orders.Notified(w.t.Context(), tx, n) }); err != nil {
		w.t.Fatal(err)
	}
}

// The provider ends a hold that waits for its capture: the payment ends at once, with a
// reason, and no capture is accepted.
func TestAHoldThatIsGoneEndsThePayment(t *testing.T) {
	for name, tc := range map[string]struct{ path, code string }{
		"voided":  {"/v1/voids", "authorization_voided"},
		"expired": {"/v1/expiries", "authorization_expired"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			id := w.placed("pm_card_visa", payment.CaptureManual)
			w.settle()
			ref := one[string](w, `SELECT authorization_reference FROM payments WHERE id = $1`, id)
			w.requestWith("by-hand", "POST", tc.path, `{"reference": "`+id+`", "authorization": "`+ref+`"}`, 201)
			w.notified(provider.Notification{Provider: "stripe", ID: "evt_1", Type: "payment_intent.canceled", Reference: id, Operation: provider.Void, OperationID: ref})
			w.settle()
			if err := second(w.orders.Capture(t.Context(), w.merchant, id)); err == nil {
				t.Error("a capture was accepted")
			}
			w.settle()
			if code := one[string](w, `SELECT failure_code FROM payments WHERE id = $1`, id); w.status(id) != "canceled" || code != tc.code {
				t.Errorf("the payment is %s for %s; the bank did %v", w.status(id), code, w.ledger(id))
			}
			if n := w.count(`SELECT count(*) FROM stock_reservations WHERE state = 'reserved'`); n != 0 {
				t.Error("its stock is still reserved")
			}
			w.audited()
		})
	}
}

// The simulator has the acts of a dashboard as well, and the same comes of them.
func TestTheSimulatorsActsAreFollowed(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	w.settle()
	capture := one[string](w, `SELECT capture_reference FROM payments WHERE id = $1`, id)
	post := func(key, path, more string) {
		t.Helper()
		w.requestWith(key, "POST", path, `{"reference": "`+id+`", `+more+`}`, 201)
	}
	hear := func(operation provider.OperationType, n int) {
		t.Helper()
		w.notified(provider.Notification{Provider: "simulator", ID: fmt.Sprint("evt_", n), Reference: id, Operation: operation, Key: fmt.Sprint("by-hand-", n), OperationID: fmt.Sprint("op_", n)})
		w.settle()
	}
	post("by-hand-1", "/v1/refunds", `"capture": "`+capture+`", "amount": 998, "currency": "EUR"`)
	hear(provider.Refund, 1)
	if refunded, _ := w.amounts(id); refunded != 998 {
		t.Errorf("%d are refunded", refunded)
	}
	refund := one[string](w, `SELECT provider_reference FROM refunds WHERE payment_id = $1`, id)
	post("by-hand-2", "/v1/refund_failures", `"refund": "`+refund+`"`)
	hear("refund_failure", 2)
	if refunded, _ := w.amounts(id); refunded != 0 {
		t.Errorf("%d are refunded after the refund failed", refunded)
	}
	post("by-hand-3", "/v1/disputes", `"capture": "`+capture+`", "amount": 4998, "currency": "EUR", "reason": "fraudulent"`)
	hear("dispute", 3)
	if got := one[string](w, `SELECT status || ' ' || reason FROM disputes WHERE payment_id = $1`, id); got != "open fraudulent" {
		t.Errorf("the dispute is %s", got)
	}
	events := w.events(id)
	if !slices.Equal(events[len(events)-3:], []string{"refund.succeeded", "refund.failed", "dispute.opened"}) {
		t.Errorf("events: %v", events)
	}
	if changes, err := w.orders.Compare(t.Context(), w.merchant, id); err != nil || len(changes) != 0 {
		t.Errorf("still differ: %+v, %v", changes, err)
	}
	w.audited()
}

// A refund that was made outside while another of ours is under way does not break the
// bounds: it waits until the other has ended.
func TestARefundOutsideBesideOneThatIsUnderWay(t *testing.T) {
	w := newStripeWorld(t)
	id := w.placed("pm_card_visa", "")
	w.hear()
	w.account.RefundOutside(w.charge(id), 3000)
	three := int64(3000)
	if _, err := w.refund(t.Context(), id, &three); err != nil { // it cannot be given, which nobody here knows yet
		t.Fatal(err)
	}
	if _, err := w.orders.Follow(t.Context(), w.merchant, id); err != nil {
		t.Fatal(err)
	}
	w.wantChanges(id, "refunds_over_bounds:open")
	w.hear() // ours is refused
	if _, err := w.orders.Follow(t.Context(), w.merchant, id); err != nil {
		t.Fatal(err)
	}
	if refunded, refunding := w.amounts(id); refunded != 3000 || refunding != 0 {
		t.Errorf("%d are refunded and %d are being refunded", refunded, refunding)
	}
	w.agrees(id)
}

// With the wrong key for an hour, news of a payment changes nothing; with the right one
// again, it is followed.
func TestTheWrongAccountForAnHour(t *testing.T) {
	w := newStripeWorld(t)
	w.server.Account("sk_test_b")
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.hear()
	w.account.Expire(w.intent(id))
	w.use("sk_test_b")
	for _, n := range w.account.Take() {
		if err := w.receiver.Receive(t.Context(), "stripe", n.Signed(stripeSecret, time.Now()), n.Body); err != nil {
			t.Fatal(err)
		}
	}
	worker := w.worker()
	for w.count(`SELECT count(*) FROM sagas WHERE definition = 'inspect_payment' AND waits_for IS NOT NULL`) == 0 {
		if _, err := worker.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		worker.Drain()
	}
	w.wantStatus(id, "requires_capture")
	w.wantChanges(id)
	w.use("sk_test_a")
	w.exec(`UPDATE sagas SET due_at = now() WHERE definition = 'inspect_payment'`) // the hour is over
	w.settle()
	w.wantStatus(id, "canceled")
	w.agrees(id)
}
