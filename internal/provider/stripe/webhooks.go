package stripe

import (
	"encoding/json"
	"strconv"
	"time"

	"payments/internal/provider"
)

// Webhooks reads Stripe's events, whatever their API version: of an event only
// names are taken.
func Webhooks(secrets []string, now func() time.Time) (*provider.Webhooks, error) {
	return provider.NewWebhooks(Name, "Stripe-Signature", secrets, now, parseEvent)
}

// latest is 3000-01-01: no time of an event, and one that a date can hold.
const latest = 32_503_680_000

// made is zero for what is neither a Unix time in seconds nor RFC 3339, as in the
// events of API v2: no event is refused for it.
func made(created json.RawMessage) (t time.Time) {
	var text string
	if seconds, err := strconv.ParseInt(string(created), 10, 64); err == nil {
		t = time.Unix(seconds, 0)
	} else if json.Unmarshal(created, &text) == nil {
		t, _ = time.Parse(time.RFC3339, text) // zero, as what cannot be told
	}
	if t.Unix() <= 0 || t.Unix() >= latest {
		return time.Time{}
	}
	return t
}

// operationDispute is none of ours: no request of this service makes one.
const operationDispute provider.OperationType = "dispute"

// nameOf an object that stands as its id, or expanded.
func nameOf(object json.RawMessage) string {
	var id string
	if json.Unmarshal(object, &id) == nil {
		return provider.Printable(id, 255)
	}
	var expanded struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(object, &expanded) // then it names nothing
	return provider.Printable(expanded.ID, 255)
}

func parseEvent(body []byte) (provider.Notification, error) {
	var e struct {
		ID      string          `json:"id"`
		Type    string          `json:"type"`
		Created json.RawMessage `json:"created"`
		Data    struct {
			Object struct {
				ID            string            `json:"id"`
				Object        string            `json:"object"`
				Status        string            `json:"status"`
				PaymentIntent json.RawMessage   `json:"payment_intent"`
				Metadata      map[string]string `json:"metadata"`
			} `json:"object"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return provider.Notification{}, err
	}
	m := e.Data.Object.Metadata
	n := provider.Notification{
		ID: e.ID, Type: provider.Printable(e.Type, 64), Reference: m[metaReference], Key: m[metaKey],
		Operation: provider.OperationType(m[metaType]), OperationID: e.Data.Object.ID,
	}
	n.Made = made(e.Created)
	switch object := e.Data.Object; object.Object {
	case "payment_intent":
		n.Authorization = object.ID
	case "charge":
		n.Authorization = nameOf(object.PaymentIntent)
	case "refund": // of one that was made at the dashboard the metadata say nothing
		n.Authorization, n.Operation = nameOf(object.PaymentIntent), provider.Refund
		n.Declined = object.Status == "failed" || object.Status == "canceled"
	case "dispute":
		n.Authorization, n.Operation, n.Key = nameOf(object.PaymentIntent), operationDispute, ""
	}
	// A PaymentIntent's metadata name its authorization; its state tells what was done to it.
	switch e.Type {
	case "payment_intent.succeeded":
		n.Operation, n.Key = provider.Capture, m[metaCapture]
	case "payment_intent.canceled":
		n.Operation, n.Key = provider.Void, "" // a cancellation's key stands nowhere
	case "payment_intent.payment_failed", "charge.failed", "refund.failed":
		n.Declined = true
	}
	return n, nil
}
