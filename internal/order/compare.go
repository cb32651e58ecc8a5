package order

import (
	"fmt"
	"slices"
	"time"

	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

// ChangeKind names a difference between our books and the provider's.
type ChangeKind string

// What can have changed at the provider's side.
const (
	// Recorded by the service itself: they are facts, and the books follow them.
	RefundFailedLater ChangeKind = "refund_failed_later" // it had succeeded
	RefundOutside     ChangeKind = "refund_outside"      // made at the provider's dashboard
	CaptureOutside    ChangeKind = "capture_outside"     // in full, of a payment that can still succeed
	VoidOutside       ChangeKind = "void_outside"        // of a payment that waits for its capture
	Expired           ChangeKind = "authorization_expired"
	Disputed          ChangeKind = "disputed" // a new dispute, or news of one

	// For a person to settle, here or at the provider.
	CaptureUnfit      ChangeKind = "capture_unfit" // in part, or of a payment that cannot succeed any more
	CaptureMissing    ChangeKind = "capture_missing"
	RefundMissing     ChangeKind = "refund_missing"
	HeldAfterEnd      ChangeKind = "held_after_end" // a failed or canceled payment still holds money
	AuthorizedTwice   ChangeKind = "authorized_twice"
	OtherAmount       ChangeKind = "other_amount"
	RefundsOverBounds ChangeKind = "refunds_over_bounds" // together with those under way here
)

// Change is one difference. Subject is the provider's id of what it is about.
type Change struct {
	Kind    ChangeKind
	Subject string
	Amount  int64 // minor units
	Detail  string

	refund  *refundBook            // RefundFailedLater
	made    *provider.RefundState  // RefundOutside
	dispute *provider.DisputeState // Disputed
	known   *disputeBook           // Disputed: as it was; nil of a new one
	code    string                 // RefundFailedLater
}

// Safe reports whether the books can follow the change without a person's decision.
func (c Change) Safe() bool {
	switch c.Kind { //nolint:exhaustive // the rest needs a person
	case RefundFailedLater, RefundOutside, CaptureOutside, VoidOutside, Expired, Disputed:
		return true
	}
	return false
}

// Open reports whether the change waits for an operator to take note of it.
func (c Change) Open() bool {
	return c.Kind != RefundFailedLater && c.Kind != Expired && (c.Kind != Disputed || c.dispute.Status != provider.DisputeWon)
}

// books are what this service has written down of one payment.
type books struct {
	merchantID, orderID, paymentID string
	status                         payment.Status
	currency                       string
	amount, captured               int64
	refunded, refunding            int64
	sequence                       int64  // of the order's newest event
	authorization, capture         string // the provider's ids
	saga                           sagaBook
	searching                      bool // an orphan's search has not ended
	refunds                        []refundBook
	disputes                       []disputeBook
}

// sagaBook is the order's saga as it stands.
type sagaBook struct {
	id, step  string
	state     saga.State
	awaiting  bool
	attempted bool // a request of step may have been sent
	aborted   bool // it was asked to turn back
}

type refundBook struct {
	id, reference, key, reason string
	amount                     int64
	status                     payment.RefundStatus
}

type disputeBook struct {
	id, reference string
	status        provider.DisputeStatus
	amount        int64
	reason        string
	respondBy     time.Time
}

// compare gives every difference between the books of one payment and what the
// provider has of it, but for what a saga has under way. It is pure: notifications,
// the comparison of a range and the audit all decide by it.
func (b books) compare(s provider.State) []Change {
	var changes []Change
	changes = append(changes, b.compareAuthorizations(s)...)
	changes = append(changes, b.compareCaptures(s)...)
	changes = append(changes, b.compareRefunds(s)...)
	return append(changes, b.compareDisputes(s)...)
}

// moving: the order's saga may change the authorization or the capture right now.
func (b books) moving() bool {
	return b.saga.state == saga.Running || b.saga.state == saga.Compensating
}

func (b books) compareAuthorizations(s provider.State) (changes []Change) {
	granted := 0
	for _, a := range s.Authorizations {
		if a.Status == provider.AuthorizationDeclined || a.Status == provider.AuthorizationPending {
			continue
		}
		if granted++; granted == 2 {
			changes = append(changes, Change{Kind: AuthorizedTwice, Subject: a.ID, Amount: a.Amount, Detail: "The provider has a second authorization of the payment."})
		}
		if a.Amount != b.amount || a.Currency != b.currency {
			changes = append(changes, Change{Kind: OtherAmount, Subject: a.ID, Amount: min(max(a.Amount, 0), payment.MaxAmount),
				Detail: fmt.Sprintf("The provider authorized %d %s, and the payment has %d %s.", a.Amount, a.Currency, b.amount, b.currency)})
		}
		waits := b.saga.state == saga.Running && b.saga.awaiting && !b.saga.aborted && a.ID == b.authorization
		switch ended := b.status == payment.StatusFailed || b.status == payment.StatusCanceled; {
		case a.Status == provider.AuthorizationVoided && waits:
			changes = append(changes, Change{Kind: VoidOutside, Subject: a.ID, Amount: a.Amount, Detail: "The authorization was voided at the provider."})
		case a.Status == provider.AuthorizationExpired && waits:
			changes = append(changes, Change{Kind: Expired, Subject: a.ID, Amount: a.Amount, Detail: "The authorization has expired at the provider."})
		case a.Status == provider.AuthorizationHeld && ended && !b.searching && !b.moving():
			changes = append(changes, Change{Kind: HeldAfterEnd, Subject: a.ID, Amount: a.Amount,
				Detail: fmt.Sprintf("The payment is %s, and the provider still holds its amount.", b.status)})
		}
	}
	return changes
}

func (b books) compareCaptures(s provider.State) (changes []Change) {
	captured, taken := false, int64(0)
	for _, c := range s.Captures {
		captured, taken = true, taken+c.Amount
		if b.capture != "" {
			if c.Amount != b.captured || c.Currency != b.currency {
				changes = append(changes, Change{Kind: OtherAmount, Subject: c.ID, Amount: c.Amount,
					Detail: fmt.Sprintf("The provider captured %d %s, and the payment has %d %s.", c.Amount, c.Currency, b.captured, b.currency)})
			}
			continue
		}
		full := c.Amount == b.amount && c.Currency == b.currency && c.Authorization == b.authorization
		switch {
		case b.saga.state == saga.Running && !b.saga.awaiting:
			// The capture step finds it: its request is refused, and it looks (capturing).
		case b.saga.state == saga.Running && full && !b.saga.aborted:
			changes = append(changes, Change{Kind: CaptureOutside, Subject: c.ID, Amount: c.Amount, Detail: "The payment was captured at the provider."})
		case b.saga.state == saga.Compensating:
			// The void is refused, and the saga parks.
		default:
			if taken <= b.givenBack(s, c.ID) {
				continue // a person gave it back there: nothing was taken in the end
			}
			changes = append(changes, Change{Kind: CaptureUnfit, Subject: c.ID, Amount: c.Amount,
				Detail: fmt.Sprintf("The provider captured %d %s of the payment, which is %s.", c.Amount, c.Currency, b.status)})
		}
	}
	if b.capture != "" && !captured {
		changes = append(changes, Change{Kind: CaptureMissing, Subject: b.capture, Amount: b.captured, Detail: "The payment is captured, and the provider has no capture of it."})
	}
	return changes
}

func (b books) givenBack(s provider.State, capture string) (sum int64) {
	for _, r := range s.Refunds {
		if r.Capture == capture && r.Status == provider.RefundSucceeded {
			sum += r.Amount
		}
	}
	return sum
}

func (b books) compareRefunds(s provider.State) (changes []Change) {
	seen := map[string]bool{}
	left := b.captured - b.refunded - b.refunding
	for _, r := range s.Refunds {
		ours := b.refundOf(r)
		if ours != nil {
			seen[ours.id] = true
		}
		switch {
		case ours != nil && ours.status == payment.RefundSucceeded && r.Status == provider.RefundFailed:
			changes = append(changes, Change{Kind: RefundFailedLater, Subject: r.ID, Amount: ours.amount, Detail: "A refund that had succeeded has failed.", refund: ours, code: r.Code})
		case ours != nil && ours.status == payment.RefundPending || r.Status != provider.RefundSucceeded || ours != nil && ours.status == payment.RefundSucceeded:
			// It is under way, or agrees.
		case b.capture == "" || b.status != payment.StatusSucceeded:
			// Of a capture that is not in the books: compareCaptures has it.
		case r.Currency != b.currency || r.Amount < 1 || r.Amount > left:
			changes = append(changes, Change{Kind: RefundsOverBounds, Subject: r.ID, Amount: min(max(r.Amount, 0), payment.MaxAmount),
				Detail: fmt.Sprintf("The provider refunded %d %s, and %d %s are left, refunds under way not counted.", r.Amount, r.Currency, left, b.currency)})
		default:
			left -= r.Amount
			changes = append(changes, Change{Kind: RefundOutside, Subject: r.ID, Amount: r.Amount, Detail: "A refund was made at the provider.", made: &r})
		}
	}
	for _, ours := range b.refunds {
		if ours.status == payment.RefundSucceeded && !seen[ours.id] {
			subject := ours.reference
			if subject == "" {
				subject = ours.id
			}
			changes = append(changes, Change{Kind: RefundMissing, Subject: subject, Amount: ours.amount, Detail: "A refund succeeded, and the provider has none of it."})
		}
	}
	return changes
}

// refundOf is our refund that the provider's is, by its id or by our key. A refund that
// failed here and was given there after all is one that was made outside.
func (b books) refundOf(r provider.RefundState) *refundBook {
	for i := range b.refunds {
		if b.refunds[i].reference == r.ID {
			return &b.refunds[i]
		}
	}
	i := slices.IndexFunc(b.refunds, func(o refundBook) bool { return o.reference == "" && o.key != "" && o.key == r.Key })
	if i < 0 {
		return nil
	}
	return &b.refunds[i]
}

func (b books) compareDisputes(s provider.State) (changes []Change) {
	for _, d := range s.Disputes {
		if d.Reason == "" {
			d.Reason = "general"
		}
		d.RespondBy = d.RespondBy.Truncate(time.Second) // as the books keep it
		var known *disputeBook
		for i := range b.disputes {
			if b.disputes[i].reference == d.ID {
				known = &b.disputes[i]
			}
		}
		if known != nil && known.status == d.Status && known.amount == d.Amount && known.reason == d.Reason &&
			(known.respondBy.Equal(d.RespondBy) || d.Status != provider.DisputeOpen) {
			continue
		}
		changes = append(changes, Change{
			Kind: Disputed, Subject: d.ID, Amount: d.Amount, Detail: fmt.Sprintf("The customer's bank disputes the payment: %s, %s.", d.Status, d.Reason),
			dispute: &d, known: known,
		})
	}
	return changes
}
