package order

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

// sagaData is what a saga remembers between its steps. Amount is what its calls
// are about: the order's, or the refund's.
type sagaData struct {
	MerchantID    string                `json:"merchant_id"`
	OrderID       string                `json:"order_id"`
	PaymentID     string                `json:"payment_id"`
	RefundID      string                `json:"refund_id,omitempty"`
	Account       string                `json:"provider_account,omitempty"` // since the first call
	Amount        int64                 `json:"amount"`
	Currency      string                `json:"currency"`
	PaymentMethod []byte                `json:"payment_method_ciphertext,omitempty"` // until the authorization is settled
	PlainMethod   string                `json:"payment_method,omitempty"`            // of a saga of version 1
	CaptureMethod payment.CaptureMethod `json:"capture_method,omitempty"`
	// orphan: of the request that may have been carried out, and by when it was if it was
	AuthorizationKey   string    `json:"authorization_key,omitempty"`
	AuthorizationUntil time.Time `json:"authorization_until,omitzero"`
	Authorization      string    `json:"authorization,omitempty"` // the provider's id
	Capture            string    `json:"capture,omitempty"`       // the provider's id
}

func (d sagaData) event() payment.EventData {
	return payment.EventData{MerchantID: d.MerchantID, OrderID: d.OrderID, PaymentID: d.PaymentID}
}

func decode(raw json.RawMessage) (d sagaData, err error) {
	if err = json.Unmarshal(raw, &d); err != nil {
		return d, fmt.Errorf("decode saga data: %w", err)
	}
	return d, nil
}

// forget what no step needs any more once the authorization is settled.
func (d *sagaData) forget() { d.PaymentMethod, d.PlainMethod = nil, "" }

func (d sagaData) encode() (json.RawMessage, error) {
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode saga data: %w", err)
	}
	return raw, nil
}

// call makes a step of the provider's operation. The saga's data names what the
// operation acts on; recording may add to it.
func (s *Service) call(t provider.OperationType, r record) *saga.Call {
	execute := func(ctx context.Context, req saga.Request) saga.Outcome {
		d, err := decode(req.Data)
		if err != nil {
			return badData(err)
		}
		op := d.operation(t, req.Key, req.Until)
		if t == provider.Authorization {
			if op.PaymentMethod, err = s.method(d); err != nil {
				return badData(err)
			}
		}
		return withoutMethod(s.outcome(t, s.Provider.Execute(withTraceparent(ctx, req.Trace), op)), op.PaymentMethod)
	}
	lookup := func(ctx context.Context, req saga.Request) saga.Outcome {
		d, err := decode(req.Data)
		if err != nil {
			return badData(err)
		}
		method, _ := s.method(d) // what was sent is found without it
		return withoutMethod(s.outcome(t, s.Provider.Lookup(withTraceparent(ctx, req.Trace), d.operation(t, req.Key, req.Until))), method)
	}
	return &saga.Call{Ready: s.ready, Execute: execute, Lookup: lookup, Record: recording(r)}
}

// method is the token that the authorization charges.
func (s *Service) method(d sagaData) (string, error) {
	if d.PaymentMethod == nil {
		return d.PlainMethod, nil
	}
	return s.Methods.Open(d.PaymentMethod, d.PaymentID)
}

// withoutMethod: what a provider wrote is kept, logged and shown, and may repeat the
// token that it was sent.
func withoutMethod(o saga.Outcome, method string) saga.Outcome {
	if method != "" {
		o.Code = strings.ReplaceAll(o.Code, method, hiddenMethod)
		o.Detail = strings.ReplaceAll(o.Detail, method, hiddenMethod)
	}
	return o
}

const hiddenMethod = "pm_…"

// badData: nothing was sent, and what was sent before is as unclear as it was.
func badData(err error) saga.Outcome {
	return saga.Outcome{Verdict: saga.Unknown, Code: "bad_saga_data", Detail: err.Error()}
}

func (d sagaData) operation(t provider.OperationType, key string, until time.Time) provider.Operation {
	op := provider.Operation{Key: key, Until: until, Reference: d.PaymentID, Type: t, Amount: d.Amount, Currency: d.Currency}
	switch t { //nolint:exhaustive // an authorization acts on nothing
	case provider.Capture, provider.Void:
		op.Parent = d.Authorization
	case provider.Refund:
		op.Parent = d.Capture
	}
	return op
}

// gone are the provider's refusals of a void that say that nothing is held any more.
var gone = map[string]bool{"already_voided": true, "authorization_voided": true, codeLapsed: true}

func (s *Service) outcome(t provider.OperationType, r provider.Result) saga.Outcome {
	s.accounts.heard(r.Code)
	o := saga.Outcome{Verdict: saga.Unknown, Code: r.Code, Detail: r.Message, Reference: r.OperationID, InFlight: r.InFlight, Pending: r.Pending}
	switch r.Outcome {
	case provider.Succeeded:
		o.Verdict = saga.Succeeded
	case provider.Rejected:
		o.Verdict = saga.Rejected
		if o.Code == codeCanceled { // that is the merchant's own wish here
			o.Code = codeCanceledByProvider
		}
		if t == provider.Void && gone[r.Code] {
			o.Verdict = saga.Succeeded
		}
	case provider.NotFound:
		o.Verdict = saga.NotFound
	default:
		if o.Code == "" {
			o.Code = "provider_unknown"
		}
		if r.Err != nil {
			o.Detail = r.Err.Error()
		}
	}
	return o
}
