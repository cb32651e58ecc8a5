package payment

// RefundStatus is the state of a refund.
type RefundStatus string

// A refund is pending until the provider has answered.
const (
	RefundPending   RefundStatus = "pending"
	RefundSucceeded RefundStatus = "succeeded"
	RefundFailed    RefundStatus = "failed"
)

// ParseRefundStatus is false for a word that is none.
func ParseRefundStatus(s string) (RefundStatus, bool) {
	status := RefundStatus(s)
	return status, status == RefundPending || status == RefundSucceeded || status == RefundFailed
}

// Refund is what a merchant asks to give back of one payment. Whether the payment
// has that much left is the write model's to say.
type Refund struct {
	amount int64
	all    bool
	reason string
	staff  Staff
}

// Staff is a person of the service who acts for a merchant, by an API key. It is zero if the
// merchant acts.
type Staff struct{ KeyID, Holder string }

// NewRefund takes minor units, or nil for all that is left, and a reason, which
// may be empty.
func NewRefund(amount *int64, reason string) (Refund, error) {
	var v violations
	r := Refund{all: amount == nil, reason: reason}
	if amount != nil {
		if r.amount = *amount; r.amount < 1 || r.amount > MaxAmount {
			v.add("/amount", "out_of_range", "must be from 1 to %d minor units", MaxAmount)
		}
	}
	if err := validText(reason, MaxReference); reason != "" && err != nil {
		v.add("/reason", "text_invalid", "%v", err)
	}
	if err := v.err("refund"); err != nil {
		return Refund{}, err
	}
	return r, nil
}

// Amount is what to give back of left, in minor units.
func (r Refund) Amount(left int64) int64 {
	if r.all {
		return left
	}
	return r.amount
}

// Reason is empty when none was given.
func (r Refund) Reason() string { return r.reason }

// By is the refund as the person of the service asks for it.
func (r Refund) By(s Staff) Refund {
	r.staff = s
	return r
}

// Staff is who asks for it, unless the merchant does.
func (r Refund) Staff() Staff { return r.staff }
