package stripetest

import (
	"encoding/json"
	"strings"
)

// The objects have Stripe's names and states. A nil pointer is null.

type intent struct {
	ID                 string            `json:"id"`
	Object             string            `json:"object"`
	Amount             int64             `json:"amount"`
	AmountCapturable   int64             `json:"amount_capturable"`
	AmountReceived     int64             `json:"amount_received"`
	CanceledAt         *int64            `json:"canceled_at"`
	CancellationReason *string           `json:"cancellation_reason"`
	CaptureMethod      string            `json:"capture_method"`
	Created            int64             `json:"created"`
	Currency           string            `json:"currency"`
	LastPaymentError   map[string]any    `json:"last_payment_error"`
	LatestCharge       *string           `json:"latest_charge"`
	Livemode           bool              `json:"livemode"`
	Metadata           map[string]string `json:"metadata"`
	PaymentMethod      *string           `json:"payment_method"`
	Status             string            `json:"status"`
}

type charge struct {
	ID             string            `json:"id"`
	Object         string            `json:"object"`
	Amount         int64             `json:"amount"`
	AmountCaptured int64             `json:"amount_captured"`
	AmountRefunded int64             `json:"amount_refunded"`
	Captured       bool              `json:"captured"`
	Created        int64             `json:"created"`
	Currency       string            `json:"currency"`
	Disputed       bool              `json:"disputed"`
	FailureCode    *string           `json:"failure_code"`
	FailureMessage *string           `json:"failure_message"`
	Livemode       bool              `json:"livemode"`
	Metadata       map[string]string `json:"metadata"`
	Paid           bool              `json:"paid"`
	PaymentIntent  string            `json:"payment_intent"`
	Refunded       bool              `json:"refunded"`
	Status         string            `json:"status"`
}

type refund struct {
	ID            string            `json:"id"`
	Object        string            `json:"object"`
	Amount        int64             `json:"amount"`
	Charge        string            `json:"charge"`
	Created       int64             `json:"created"`
	Currency      string            `json:"currency"`
	FailureReason string            `json:"failure_reason,omitempty"`
	Metadata      map[string]string `json:"metadata"`
	PaymentIntent string            `json:"payment_intent"`
	PendingReason string            `json:"pending_reason,omitempty"`
	Reason        *string           `json:"reason"`
	Status        string            `json:"status"`
}

// returned is false for a refund that gave nothing back.
func (r *refund) returned() bool { return r.Status != "failed" && r.Status != "canceled" }

type dispute struct {
	ID              string            `json:"id"`
	Object          string            `json:"object"`
	Amount          int64             `json:"amount"`
	Charge          string            `json:"charge"`
	Created         int64             `json:"created"`
	Currency        string            `json:"currency"`
	EvidenceDetails evidenceDetails   `json:"evidence_details"`
	Refundable      bool              `json:"is_charge_refundable"`
	Livemode        bool              `json:"livemode"`
	Metadata        map[string]string `json:"metadata"`
	PaymentIntent   string            `json:"payment_intent"`
	Reason          string            `json:"reason"`
	Status          string            `json:"status"`
}

type evidenceDetails struct {
	DueBy           *int64 `json:"due_by"`
	HasEvidence     bool   `json:"has_evidence"`
	PastDue         bool   `json:"past_due"`
	SubmissionCount int64  `json:"submission_count"`
}

// node is what a list holds.
type node interface {
	key() string
	made() int64
}

func (i *intent) key() string  { return i.ID }
func (c *charge) key() string  { return c.ID }
func (r *refund) key() string  { return r.ID }
func (d *dispute) key() string { return d.ID }
func (e *event) key() string   { return e.ID }
func (i *intent) made() int64  { return i.Created }
func (c *charge) made() int64  { return c.Created }
func (r *refund) made() int64  { return r.Created }
func (d *dispute) made() int64 { return d.Created }
func (e *event) made() int64   { return e.Created }

// render is the object as JSON members; later changes of o do not reach them. The
// members that expand names become objects (https://docs.stripe.com/api/expanding_objects).
func (a *Account) render(o any, expand []string) map[string]any {
	raw, err := json.Marshal(o)
	if err != nil {
		panic(err) // structs of plain values
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		panic(err)
	}
	for _, path := range expand {
		member, rest, _ := strings.Cut(path, ".")
		id, ok := out[member].(string)
		if !ok {
			continue
		}
		var deeper []string
		if rest != "" {
			deeper = []string{rest}
		}
		if found := a.find(id); found != nil {
			out[member] = a.render(found, deeper)
		}
	}
	return out
}

// find gives the object with this id, or nil.
func (a *Account) find(id string) node {
	if i := byID(a.intents, id); i != nil {
		return i
	}
	if c := byID(a.charges, id); c != nil {
		return c
	}
	if r := byID(a.refunds, id); r != nil {
		return r
	}
	if d := byID(a.disputes, id); d != nil {
		return d
	}
	return nil
}

func byID[T interface {
	*E
	node
}, E any](all []T, id string) T {
	for _, o := range all {
		if o.key() == id {
			return o
		}
	}
	return nil
}
