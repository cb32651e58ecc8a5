package readmodel

import (
	"testing"
	"time"

	"payments/internal/inbox"
	"payments/internal/payment"
)

func refunding(r payment.RefundData) func(*payment.EventData) {
	return func(d *payment.EventData) { d.Refund = &r }
}

// refunds are the events of two refunds, of which one succeeds.
func (l *life) refunds(given, refused string) []inbox.Message {
	l.w.t.Helper()
	event := func(kind payment.EventType, id string, amount int64, status payment.RefundStatus, code string) inbox.Message {
		return l.event(kind, payment.StatusSucceeded, refunding(payment.RefundData{
			ID: id, Amount: amount, Reason: "returned", Status: status, FailureCode: code, Provider: "simulator", Operation: "op_9",
		}))
	}
	return []inbox.Message{
		event(payment.EventRefundRequested, given, 1000, payment.RefundPending, ""),
		event(payment.EventRefundRequested, refused, 500, payment.RefundPending, ""),
		event(payment.EventRefundFailed, refused, 500, payment.RefundFailed, "refund_exceeds_capture"),
		event(payment.EventRefundSucceeded, given, 1000, payment.RefundSucceeded, ""),
	}
}

func TestRefundsFollowTheirEvents(t *testing.T) {
	w := newWorld(t)
	given := w.ids.New(payment.PrefixRefund)
	w.clock = w.clock.Add(time.Millisecond) // ids of one instant are in no order
	refused := w.ids.New(payment.PrefixRefund)
	// In one batch, and one by one: the same rows.
	var shown [2][]Refund
	for n := range shown {
		o := w.order(w.merchant())
		w.clock = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		w.apply(o.succeeded()...)
		events := o.refunds(given, refused)
		if n == 0 {
			w.apply(events...)
		} else {
			for _, e := range events {
				w.apply(e)
			}
		}
		w.apply(events...) // again
		if got := w.get(o); got.AmountRefunded != 1000 || got.Status != payment.StatusSucceeded {
			t.Errorf("refunded %+v", got)
		}
		var err error
		if shown[n], err = w.queries.Refunds(t.Context(), merchant(t, o.ids.MerchantID), o.ids.PaymentID, "", 10); err != nil {
			t.Fatal(err)
		}
		for i := range shown[n] {
			shown[n][i].PaymentID = ""
		}
		if _, err := w.queries.Refunds(t.Context(), merchant(t, w.merchant()), o.ids.PaymentID, "", 10); err == nil {
			t.Error("another merchant sees them")
		}
	}
	at := func(second int) time.Time { return time.Date(2026, 3, 1, 12, 0, second, 0, time.UTC) }
	want := []Refund{
		{ID: given, Amount: 1000, Currency: "EUR", Reason: "returned", Status: payment.RefundSucceeded, CreatedAt: at(6), UpdatedAt: at(9)},
		{ID: refused, Amount: 500, Currency: "EUR", Reason: "returned", Status: payment.RefundFailed, FailureCode: "refund_exceeds_capture", CreatedAt: at(7), UpdatedAt: at(8)},
	}
	same(t, "in one batch", shown[0], want)
	same(t, "one by one", shown[1], want)
	same(t, "dead letters", w.deadLetters(), []string{})
}
