package payment

import "time"

// Topic is where every event of a payment is published, keyed by order id.
const Topic = "payments.events.v1"

// EventSource is the CloudEvents source of this service's events.
const EventSource = "/payments"

// EventType is the CloudEvents type of an event; docs/events has its schema.
type EventType string

// The events of an order. Their data is EventData.
const (
	EventOrderPlaced       EventType = "order.placed"
	EventStockReserved     EventType = "stock.reserved"
	EventStockRejected     EventType = "stock.rejected"
	EventPaymentAuthorized EventType = "payment.authorized"
	EventPaymentDeclined   EventType = "payment.declined"
	EventPaymentCaptured   EventType = "payment.captured"
	EventPaymentVoided     EventType = "payment.voided"
	EventStockReleased     EventType = "stock.released"
	EventOrderConfirmed    EventType = "order.confirmed"
	EventOrderFailed       EventType = "order.failed"
	EventOrderCanceled     EventType = "order.canceled"
	EventRefundRequested   EventType = "refund.requested"
	EventRefundSucceeded   EventType = "refund.succeeded"
	EventRefundFailed      EventType = "refund.failed"
	EventReviewRequired    EventType = "payment.review_required"
	EventDisputeOpened     EventType = "dispute.opened"
	EventDisputeUpdated    EventType = "dispute.updated"
	EventDisputeClosed     EventType = "dispute.closed"
)

// EventTypes lists every type, in the order of the flow.
var EventTypes = []EventType{
	EventOrderPlaced, EventStockReserved, EventStockRejected, EventPaymentAuthorized,
	EventPaymentDeclined, EventPaymentCaptured, EventPaymentVoided, EventStockReleased,
	EventOrderConfirmed, EventOrderFailed, EventOrderCanceled,
	EventRefundRequested, EventRefundSucceeded, EventRefundFailed, EventReviewRequired,
	EventDisputeOpened, EventDisputeUpdated, EventDisputeClosed,
}

// EventData is the data of every event: the ids and the status after the event
// always, the rest by type (docs/events). Members are only ever added.
type EventData struct {
	MerchantID string `json:"merchant_id"`
	OrderID    string `json:"order_id"`
	PaymentID  string `json:"payment_id"`
	Status     Status `json:"status"`

	Placed        *PlacedData        `json:"placed,omitempty"`
	Authorization *AuthorizationData `json:"authorization,omitempty"`
	Captured      *CapturedData      `json:"captured,omitempty"`
	Failure       *Failure           `json:"failure,omitempty"`
	Refund        *RefundData        `json:"refund,omitempty"`
	Dispute       *DisputeData       `json:"dispute,omitempty"`
	Attempts      []AttemptData      `json:"attempts,omitempty"`
}

// PlacedData is what order.placed tells of the new order. Amounts are in minor units.
type PlacedData struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	// The fingerprint of the payment method, the same for the same one; where there is
	// no ciphertext, from before there were any, the token itself.
	PaymentMethod string `json:"payment_method"`
	// The token: Tink AEAD, bound to the payment's id.
	PaymentMethodCiphertext []byte        `json:"payment_method_ciphertext,omitempty"`
	CaptureMethod           CaptureMethod `json:"capture_method,omitempty"` // automatic if missing
	Customer                Customer      `json:"customer"`
	Reference               string        `json:"reference"`
	Lines                   []LineData    `json:"lines"`
}

// Customer carries the address only as ciphertext (base64 of Tink AEAD, bound
// to the payment's id), so that no log, topic or dump shows it.
type Customer struct {
	Reference       string `json:"reference"`
	EmailCiphertext []byte `json:"email_ciphertext,omitempty"`
}

// LineData is one line of the order; UnitAmount is in minor units.
type LineData struct {
	SKU        string `json:"sku"`
	Quantity   int64  `json:"quantity"`
	UnitAmount int64  `json:"unit_amount"`
}

// AuthorizationData names the hold at the provider.
type AuthorizationData struct {
	Provider  string `json:"provider"`
	Operation string `json:"operation"`
	Amount    int64  `json:"amount"`
}

// CapturedData names the charge at the provider; Amount is in minor units.
type CapturedData struct {
	Provider  string `json:"provider"`
	Operation string `json:"operation"`
	Amount    int64  `json:"amount"`
}

// RefundData is a refund as it stands after the event; Amount is in minor units.
type RefundData struct {
	ID          string       `json:"id"`
	Amount      int64        `json:"amount"`
	Reason      string       `json:"reason,omitempty"`
	Status      RefundStatus `json:"status"`
	FailureCode string       `json:"failure_code,omitempty"`
	Provider    string       `json:"provider,omitempty"`
	Operation   string       `json:"operation,omitempty"`
	// Of one that failed: it had succeeded, and its amount counts as refunded no more.
	Reversed bool `json:"reversed,omitempty"`
}

// DisputeData is a dispute as it stands after the event; Amount is in minor units of
// Currency, which may be another than the payment's.
type DisputeData struct {
	ID        string        `json:"id"`
	Status    DisputeStatus `json:"status"`
	Amount    int64         `json:"amount"`
	Currency  string        `json:"currency"`
	Reason    string        `json:"reason"`
	RespondBy *time.Time    `json:"respond_by,omitempty"` // of an open one that can be answered
	OpenedAt  time.Time     `json:"opened_at"`            // when the event that opened it happened
	Provider  string        `json:"provider,omitempty"`
	Operation string        `json:"operation,omitempty"`
}

// AttemptData is one attempt of the saga's step that led to the event, so that
// the timeline can be told from events alone.
type AttemptData struct {
	Number     int       `json:"number"` // counts over the whole saga, from 1
	Step       string    `json:"step"`
	Call       string    `json:"call"`    // local, execute, lookup, await or operator
	Outcome    string    `json:"outcome"` // succeeded, rejected, not_found or unknown
	Code       string    `json:"code,omitempty"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
}
