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
	Expires        string `json:"expires,omitzero"` // authorization only: no capture from then on
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
	default:
		return judgeRefund(r, on)
	}
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
		left -= o.Amount
	}
	switch {
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
// amount; without one the currency is XXX, ISO 4217's "no currency". lifetime is
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
	if r.Type == void {
		o.Amount, o.Currency = on.parent.Operation.Amount, cmp.Or(on.parent.Operation.Currency, "XXX")
	}
	if d := judge(r, on, now); d != (decline{}) {
		o.Status, o.Code, o.Message = declined, d.code, d.message
	} else if r.Type == authorization {
		o.Expires = timestamp(now.Add(lifetime))
	}
	return o
}
