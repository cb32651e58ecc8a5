package stripe

import (
	"encoding/json"
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

func parseEvent(body []byte) (provider.Notification, error) {
	var e struct {
		ID      string `json:"id"`
		Type    string `json:"type"`
		Created int64  `json:"created"` // in seconds
		Data    struct {
			Object struct {
				ID       string            `json:"id"`
				Metadata map[string]string `json:"metadata"`
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
	if e.Created > 0 && e.Created < latest {
		n.Made = time.Unix(e.Created, 0)
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
