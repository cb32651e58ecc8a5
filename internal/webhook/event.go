package webhook

import (
	"encoding/json"
	"time"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// event is what a CloudEvent of the log tells a merchant.
type event struct {
	id         string
	kind       payment.EventType
	at         time.Time
	merchantID string
	paymentID  string
	body       []byte
}

// Payload is the body of a delivery (docs/webhooks.md). Amounts are in minor
// units. Members are only ever added.
type Payload struct {
	Type      payment.EventType `json:"type"`
	Timestamp time.Time         `json:"timestamp"` // of the event
	Data      Data              `json:"data"`
}

// Data has the ids and the status after the event always, the rest where the
// event tells it. It never has the customer's address, nor the payment method, nor
// what the provider calls its operations.
type Data struct {
	EventID  string         `json:"event_id"`
	Sequence int64          `json:"sequence"` // of the order's events: 1, 2, 3 …
	Payment  string         `json:"payment_id"`
	Order    string         `json:"order_id"`
	Status   payment.Status `json:"status"`

	Amount            int64                 `json:"amount,omitempty"`
	Currency          string                `json:"currency,omitempty"`
	CaptureMethod     payment.CaptureMethod `json:"capture_method,omitempty"`
	OrderReference    string                `json:"order_reference,omitempty"`
	CustomerReference string                `json:"customer_reference,omitempty"`
	AmountAuthorized  int64                 `json:"amount_authorized,omitempty"`
	AmountCaptured    int64                 `json:"amount_captured,omitempty"`
	Failure           *payment.Failure      `json:"failure,omitempty"`
	Refund            *Refund               `json:"refund,omitempty"`
	Dispute           *Dispute              `json:"dispute,omitempty"`
}

// Refund is a refund after the event.
type Refund struct {
	ID          string               `json:"id"`
	Amount      int64                `json:"amount"`
	Status      payment.RefundStatus `json:"status"`
	Reason      string               `json:"reason,omitempty"`
	FailureCode string               `json:"failure_code,omitempty"`
	Reversed    bool                 `json:"reversed,omitempty"` // it had succeeded
}

// Dispute is a dispute after the event.
type Dispute struct {
	ID        string                `json:"id"`
	Status    payment.DisputeStatus `json:"status"`
	Amount    int64                 `json:"amount"`
	Currency  string                `json:"currency"`
	Reason    string                `json:"reason"`
	RespondBy *time.Time            `json:"respond_by,omitempty"`
	OpenedAt  time.Time             `json:"opened_at"`
}

func decode(m inbox.Message) (e event, err error) {
	told, err := payment.ReadEvent(m.Headers, m.Value)
	if err != nil {
		return e, err
	}
	d := told.Data
	e.id, e.kind, e.at = told.ID, told.Type, told.At
	e.merchantID, e.paymentID = d.MerchantID, d.PaymentID
	e.body, err = json.Marshal(NewPayload(told))
	return e, err
}

// NewPayload is what a merchant is told of the event, by a webhook or a stream.
func NewPayload(told payment.Event) Payload {
	d := told.Data
	p := Payload{Type: told.Type, Timestamp: told.At.UTC(), Data: Data{
		EventID: told.ID, Sequence: told.Sequence, Payment: d.PaymentID, Order: d.OrderID, Status: d.Status, Failure: d.Failure,
	}}
	if placed := d.Placed; placed != nil {
		p.Data.Amount, p.Data.Currency = placed.Amount, placed.Currency
		p.Data.CaptureMethod = placed.CaptureMethod
		p.Data.OrderReference, p.Data.CustomerReference = placed.Reference, placed.Customer.Reference
	}
	if d.Authorization != nil {
		p.Data.AmountAuthorized = d.Authorization.Amount
	}
	if d.Captured != nil {
		p.Data.AmountCaptured = d.Captured.Amount
	}
	if r := d.Refund; r != nil {
		p.Data.Refund = &Refund{ID: r.ID, Amount: r.Amount, Status: r.Status, Reason: r.Reason, FailureCode: r.FailureCode, Reversed: r.Reversed}
	}
	if d := d.Dispute; d != nil {
		p.Data.Dispute = &Dispute{
			ID: d.ID, Status: d.Status, Amount: d.Amount, Currency: d.Currency, Reason: d.Reason, RespondBy: d.RespondBy, OpenedAt: d.OpenedAt,
		}
	}
	return p
}
