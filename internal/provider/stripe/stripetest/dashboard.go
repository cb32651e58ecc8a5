package stripetest

import (
	"time"
)

// What is here happens at the provider's side: a person at Stripe's dashboard, Stripe
// itself, or the customer's bank did it. Each has its events. An id that does not
// exist, or a state in which Stripe would refuse, fails the test.

func (a *Account) must(holds bool, format string, args ...any) {
	a.s.t.Helper()
	if !holds {
		a.s.t.Fatalf(format, args...)
	}
}

// CaptureOutside captures amount of a PaymentIntent; 0 is all that is held.
func (a *Account) CaptureOutside(intentID string, amount int64) {
	a.s.t.Helper()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	i := byID(a.intents, intentID)
	a.must(i != nil && i.Status == "requires_capture" && amount <= i.AmountCapturable, "there is nothing to capture of %s", intentID)
	if amount == 0 {
		amount = i.AmountCapturable
	}
	a.capture(i, amount)
}

// CancelOutside cancels a PaymentIntent for a person's reason: duplicate, fraudulent,
// requested_by_customer, abandoned, or none.
func (a *Account) CancelOutside(intentID, reason string) {
	a.s.t.Helper()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	i := byID(a.intents, intentID)
	a.must(i != nil && i.Status != "succeeded" && i.Status != "canceled", "%s cannot be canceled", intentID)
	a.cancel(i, reason, "")
}

// Expire cancels a PaymentIntent whose authorization has run out (after seven days for
// most cards).
func (a *Account) Expire(intentID string) {
	a.s.t.Helper()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	i := byID(a.intents, intentID)
	a.must(i != nil && i.Status == "requires_capture", "%s holds nothing", intentID)
	a.cancel(i, "automatic", "expired_uncaptured_charge")
}

// RefundOutside refunds amount of a charge and gives the refund's id; 0 is all that
// is left. The refund has no metadata.
func (a *Account) RefundOutside(chargeID string, amount int64) (refundID string) {
	a.s.t.Helper()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	c := byID(a.charges, chargeID)
	a.must(c != nil && c.Captured && c.AmountRefunded+amount <= c.Amount && c.AmountRefunded < c.Amount, "%s cannot be refunded", chargeID)
	if amount == 0 {
		amount = c.Amount - c.AmountRefunded
	}
	return a.refund(c, amount, map[string]string{}).ID
}

// RefundsPend lets refunds begin as pending, as they do while the account's balance
// is too low. They end by SettleRefund or FailRefund.
func (a *Account) RefundsPend(pend bool) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.pending = pend
}

// SettleRefund lets a pending refund succeed.
func (a *Account) SettleRefund(refundID string) {
	a.s.t.Helper()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	r := byID(a.refunds, refundID)
	a.must(r != nil && r.Status == "pending", "%s is not pending", refundID)
	r.Status, r.PendingReason = "succeeded", ""
	a.emit("refund.updated", r)
	a.emit("charge.refund.updated", r)
}

// FailRefund lets a refund fail, also one that has succeeded: the customer's bank sent
// the money back (https://docs.stripe.com/refunds#failed-refunds).
func (a *Account) FailRefund(refundID, reason string) {
	a.s.t.Helper()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	r := byID(a.refunds, refundID)
	a.must(r != nil && r.returned(), "%s cannot fail", refundID)
	r.Status, r.PendingReason, r.FailureReason = "failed", "", reason
	c := byID(a.charges, r.Charge)
	c.AmountRefunded -= r.Amount
	c.Refunded = false
	a.emit("refund.failed", r)
	a.emit("charge.refund.updated", r)
}

// OpenDispute disputes amount of a charge; 0 is what was captured. dueBy is the end of
// the time for evidence.
func (a *Account) OpenDispute(chargeID string, amount int64, reason string, dueBy time.Time) (disputeID string) {
	a.s.t.Helper()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	c := byID(a.charges, chargeID)
	a.must(c != nil && c.Captured, "%s cannot be disputed", chargeID)
	if amount == 0 {
		amount = c.AmountCaptured
	}
	due := dueBy.Unix()
	d := &dispute{
		ID: a.id("du"), Object: "dispute", Amount: amount, Charge: c.ID, Created: a.s.now().Unix(), Currency: c.Currency,
		EvidenceDetails: evidenceDetails{DueBy: &due}, Metadata: map[string]string{}, PaymentIntent: c.PaymentIntent,
		Reason: reason, Status: "needs_response",
	}
	a.disputes = append(a.disputes, d)
	c.Disputed = true
	a.emit("charge.dispute.created", d)
	a.emit("charge.dispute.funds_withdrawn", d)
	return d.ID
}

// CloseDispute ends a dispute as won or lost.
func (a *Account) CloseDispute(disputeID, status string) {
	a.s.t.Helper()
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	d := byID(a.disputes, disputeID)
	a.must(d != nil && d.Status != "won" && d.Status != "lost" && (status == "won" || status == "lost"), "%s cannot end as %s", disputeID, status)
	d.Status = status
	a.emit("charge.dispute.closed", d)
	if status == "won" {
		a.emit("charge.dispute.funds_reinstated", d)
	}
}

// Seed adds n captured PaymentIntents of others, made at this time.
func (a *Account) Seed(n int, at time.Time) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	for range n {
		i := &intent{
			ID: a.id("pi"), Object: "payment_intent", Amount: 100, AmountReceived: 100, Currency: "eur", CaptureMethod: "manual",
			Created: at.Unix(), Metadata: map[string]string{}, Status: "succeeded",
		}
		a.intents = append(a.intents, i)
	}
}
