package simulator

import (
	"cmp"
	"time"
)

const (
	authorization = "authorization"
	capture       = "capture"
	void          = "void"
	refund        = "refund"

	// What happens at the bank without a request of the service.
	refundFailure  = "refund_failure"  // of a refund that had succeeded
	expiry         = "expiry"          // of an authorization
	dispute        = "dispute"         // of a capture
	disputeClosure = "dispute_closure" // of a dispute: it is won or lost

	succeeded = "succeeded"
	declined  = "declined"
)

// operation is one line of the ledger and, as it stands, its JSON: the members
// of the contract first.
type operation struct {
	ID             string `json:"id"`
	Reference      string `json:"reference"`
	Type           string `json:"type"`
	Status         string `json:"status"`
	Amount         int64  `json:"amount"`
	Currency       string `json:"currency"`
	Created        string `json:"created"`
	Code           string `json:"code,omitzero"`
	Message        string `json:"message,omitzero"`
	Parent         string `json:"parent,omitzero"`
	Expires        string `json:"expires,omitzero"`    // authorization only: no capture from then on
	Reason         string `json:"reason,omitzero"`     // of a dispute; of its closure won or lost
	RespondBy      string `json:"respond_by,omitzero"` // of a dispute
	IdempotencyKey string `json:"idempotency_key"`
}

// timestamp always has its fractional seconds, unlike time.RFC3339Nano, so that
// timestamps compare as texts.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") }

// request is what a client asks for. Two requests under one key are the same
// when they are equal.
type request struct {
	Type          string `json:"type"`
	Reference     string `json:"reference"`
	Parent        string `json:"parent,omitzero"`
	Amount        int64  `json:"amount,omitzero"` // void: none
	Currency      string `json:"currency,omitzero"`
	PaymentMethod string `json:"payment_method,omitzero"` // authorization only
	Reason        string `json:"reason,omitzero"`         // dispute, and its closure
}

// entry is an operation with the request that made it, as the ledger keeps it.
type entry struct {
	Operation operation `json:"operation"`
	Request   request   `json:"request"`
}

// decline is the bank's refusal; its zero value is consent.
type decline struct{ code, message string }

var (
	cardDeclined       = decline{"card_declined", "The card was declined."}
	insufficientFunds  = decline{"insufficient_funds", "The card has insufficient funds."}
	unknownMethod      = decline{"invalid_payment_method", "There is no such payment method."}
	captureDeclined    = decline{"capture_declined", "The bank declined the capture."}
	noAuthorization    = decline{"no_such_authorization", "There is no such succeeded authorization."}
	noCapture          = decline{"no_such_capture", "There is no such succeeded capture."}
	authorizationVoid  = decline{"authorization_voided", "The authorization was voided."}
	authorizationEnded = decline{"authorization_expired", "The authorization has expired."}
	alreadyVoided      = decline{"already_voided", "The authorization was voided already."}
	alreadyCaptured    = decline{"already_captured", "The authorization was captured already."}
	amountTooLarge     = decline{"amount_too_large", "The amount is larger than the authorization."}
	otherCurrency      = decline{"currency_mismatch", "The currency is not that of the original operation."}
	noRefund           = decline{"no_such_refund", "There is no such succeeded refund."}
	noDispute          = decline{"no_such_dispute", "There is no such open dispute."}
	alreadyDisputed    = decline{"already_disputed", "The capture is disputed already."}
	disputed           = decline{"payment_disputed", "The customer disputes the payment: it cannot be refunded."}
	refundFailed       = decline{"refund_failed", "The customer's bank did not take the refund."}
	refundExceedsTaken = decline{"refund_exceeds_capture", "The refunds would exceed the capture."}
)

// related is what the ledger knows of the operation that a request acts on.
type related struct {
	parent   entry // zero when there is none
	method   string
	children []operation // of the parent, oldest first; succeeded ones only
}

// judge is the bank's rule book.
func judge(r request, on related, now time.Time) decline {
	switch r.Type {
	case authorization:
		return judgeAuthorization(r)
	case capture:
		return judgeCapture(r, on, now)
	case void:
		return judgeVoid(on)
	case refund:
		return judgeRefund(r, on)
	default:
		return judgeAct(r, on)
	}
}

// judgeAct is of what happens at the bank by itself.
func judgeAct(r request, on related) decline {
	parent := on.parent.Operation
	switch is := func(t string) bool { return parent.Type == t && parent.Status == succeeded }; {
	case r.Type == refundFailure && !is(refund):
		return noRefund
	case r.Type == expiry && (!is(authorization) || on.has(capture) || on.has(void)):
		return noAuthorization
	case r.Type == dispute && !is(capture):
		return noCapture
	case r.Type == dispute && on.has(dispute):
		return alreadyDisputed
	case r.Type == dispute && r.Currency != parent.Currency:
		return otherCurrency
	case r.Type == dispute && r.Amount > parent.Amount:
		return amountTooLarge
	case r.Type == disputeClosure && (!is(dispute) || on.has(disputeClosure)):
		return noDispute
	}
	return decline{}
}

// Every other payment method is spelt out in methodStrikes.
func judgeAuthorization(r request) decline {
	switch r.PaymentMethod {
	case "pm_card_visa", "pm_card_capture_declined":
		return decline{}
	case "pm_card_declined":
		return cardDeclined
	case "pm_card_insufficient_funds":
		return insufficientFunds
	}
	if _, ok := methodStrikes[r.PaymentMethod]; ok {
		return decline{}
	}
	return unknownMethod
}

func judgeCapture(r request, on related, now time.Time) decline {
	authorized := on.parent.Operation
	switch {
	case authorized.Type != authorization || authorized.Status != succeeded:
		return noAuthorization
	case on.has(void):
		return authorizationVoid
	case on.has(capture):
		return alreadyCaptured
	case authorized.Expires != "" && timestamp(now) >= authorized.Expires:
		return authorizationEnded
	case r.Currency != authorized.Currency:
		return otherCurrency
	case r.Amount > authorized.Amount:
		return amountTooLarge
	case on.method == "pm_card_capture_declined":
		return captureDeclined
	}
	return decline{}
}

// judgeVoid consents to a void of an expired authorization: nothing is held
// after it, which is all that a void is for.
func judgeVoid(on related) decline {
	authorized := on.parent.Operation
	switch {
	case authorized.Type != authorization || authorized.Status != succeeded:
		return noAuthorization
	case on.has(void):
		return alreadyVoided
	case on.has(capture):
		return alreadyCaptured
	}
	return decline{}
}

func judgeRefund(r request, on related) decline {
	captured := on.parent.Operation
	left := captured.Amount
	for _, o := range on.children {
		if o.Type == refund {
			left -= o.Amount
		}
	}
	switch {
	case on.has(dispute):
		return disputed
	case captured.Type != capture || captured.Status != succeeded:
		return noCapture
	case r.Currency != captured.Currency:
		return otherCurrency
	case r.Amount > left:
		return refundExceedsTaken
	}
	return decline{}
}

func (on related) has(operationType string) bool {
	for _, o := range on.children {
		if o.Type == operationType {
			return true
		}
	}
	return false
}

// newOperation is the line of the ledger for r. A void has its authorization's
// amount, as other operations without one of their own; without any the currency is XXX, ISO 4217's "no currency". lifetime is
// that of an authorization.
func newOperation(id, key string, now time.Time, lifetime time.Duration, r request, on related) operation {
	o := operation{
		ID:             id,
		Reference:      r.Reference,
		Type:           r.Type,
		Status:         succeeded,
		Amount:         r.Amount,
		Currency:       r.Currency,
		Created:        timestamp(now),
		Parent:         r.Parent,
		IdempotencyKey: key,
	}
	if amountless(r.Type) {
		o.Amount, o.Currency = on.parent.Operation.Amount, cmp.Or(on.parent.Operation.Currency, "XXX")
	}
	o.Reason = r.Reason
	if d := judge(r, on, now); d != (decline{}) {
		o.Status, o.Code, o.Message = declined, d.code, d.message
		return o
	}
	switch r.Type {
	case authorization:
		o.Expires = timestamp(now.Add(lifetime))
	case dispute:
		o.RespondBy = timestamp(now.Add(respondWithin))
	}
	return o
}

// respondWithin is how long a merchant has to answer a dispute.
const respondWithin = 10 * 24 * time.Hour

// amountless operations have the amount of what they act on.
func amountless(operationType string) bool {
	return operationType == void || operationType == refundFailure || operationType == expiry || operationType == disputeClosure
}

// after is the operation once another that acts on it has succeeded: a refund that
// failed is declined from then on, and an expired authorization has expired.
func (o operation) after(act operation) operation {
	switch act.Type {
	case refundFailure:
		o.Status, o.Code, o.Message = declined, refundFailed.code, refundFailed.message
	case expiry:
		o.Expires = act.Created
	}
	return o
}
