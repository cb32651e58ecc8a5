package readmodel

import (
	"testing"
	"time"

	"payments/internal/payment"
)

// A refund that had succeeded and fails counts as refunded no more; one that never
// succeeded counted nothing.
func TestARefundThatFailsLaterIsTakenBack(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	w.apply(o.succeeded()...)
	id := w.ids.New(payment.PrefixRefund)
	refund := payment.RefundData{ID: id, Amount: 1000, Status: payment.RefundSucceeded}
	w.apply(o.event(payment.EventRefundSucceeded, payment.StatusSucceeded, refunding(refund))) // made at the provider: nobody requested it
	if got := w.get(o); got.AmountRefunded != 1000 {
		t.Errorf("%d are refunded", got.AmountRefunded)
	}
	refund.Status, refund.FailureCode, refund.Reversed = payment.RefundFailed, "refund_failed", true
	w.apply(o.event(payment.EventRefundFailed, payment.StatusSucceeded, refunding(refund)))
	if got := w.get(o); got.AmountRefunded != 0 {
		t.Errorf("%d are refunded after the refund failed", got.AmountRefunded)
	}
	refunds, err := w.queries.Refunds(t.Context(), merchant(t, o.ids.MerchantID), o.ids.PaymentID, "", 10)
	if err != nil || len(refunds) != 1 || refunds[0].Status != payment.RefundFailed || refunds[0].FailureCode != "refund_failed" {
		t.Errorf("refunds: %+v, %v", refunds, err)
	}
	same(t, "dead letters", w.deadLetters(), []string{})
}

func TestADisputeIsShownUntilItIsWon(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	w.apply(o.succeeded()...)
	if got := w.get(o); got.Dispute != nil || got.Dispute.Disputed() {
		t.Errorf("before there is a dispute: %+v", got.Dispute)
	}
	by := time.Date(2026, 3, 12, 9, 30, 0, 0, time.UTC)
	d := payment.DisputeData{
		ID: w.ids.New(payment.PrefixDispute), Status: payment.DisputeOpen, Amount: 998, Currency: "EUR", Reason: "fraudulent",
		RespondBy: &by, OpenedAt: time.Date(2026, 3, 2, 9, 30, 0, 123, time.UTC), Provider: "stripe", Operation: "du_1",
	}
	tell := func(kind payment.EventType) {
		w.apply(o.event(kind, payment.StatusSucceeded, func(e *payment.EventData) { e.Dispute = &d }))
	}
	tell(payment.EventDisputeOpened)
	want := &payment.Dispute{ID: d.ID, Status: payment.DisputeOpen, Amount: 998, Currency: "EUR", Reason: "fraudulent", RespondBy: &by, OpenedAt: time.Date(2026, 3, 2, 9, 30, 0, 0, time.UTC)}
	got := w.get(o)
	same(t, "dispute", got.Dispute, want)
	if !got.Dispute.Disputed() || got.Status != payment.StatusSucceeded {
		t.Errorf("disputed: %+v", got)
	}
	d.Status, d.RespondBy = payment.DisputeLost, nil
	tell(payment.EventDisputeClosed)
	if got := w.get(o); !got.Dispute.Disputed() || got.Dispute.Status != payment.DisputeLost {
		t.Errorf("lost: %+v", got.Dispute)
	}
	d.Status = payment.DisputeWon
	tell(payment.EventDisputeClosed)
	if got := w.get(o); got.Dispute.Disputed() || got.Dispute.Status != payment.DisputeWon {
		t.Errorf("won: %+v", got.Dispute)
	}
	same(t, "dead letters", w.deadLetters(), []string{})
}
