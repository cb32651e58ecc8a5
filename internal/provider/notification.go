package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"payments/internal/text"
)

// maxNotification is far above any event of a provider, and far below what would
// hurt.
const maxNotification = 256 << 10

const (
	maxName = 255 // characters of an id
	maxType = 64
)

// ErrNotification is for a notification that is signed and cannot be read.
var ErrNotification = errors.New("the notification cannot be read")

// Notification is what a provider told of its own accord. It is a hint that
// something may have happened: what did is for Lookup to say.
type Notification struct {
	Provider    string
	ID          string    // the provider's, the same on every delivery
	Made        time.Time // the same on every delivery; zero where the id tells it, or nothing does
	Type        string    // the provider's word for what happened
	Reference   string    // ours, pay_…; empty if it is about none of ours
	Key         string    // of the operation, where the provider tells it
	Operation   OperationType
	OperationID string // the provider's, where it tells it
	// Authorization is the provider's id of the payment's authorization, where it tells
	// it: what was not made by us names no reference of ours.
	Authorization string
	Declined      bool // the provider says that nothing was done: no reason to look for what was
}

// Webhooks reads the notifications of one provider.
type Webhooks struct {
	provider   string
	signatures signatures
	parse      func(body []byte) (Notification, error)
}

// NewWebhooks makes a reader of what is signed in the header with one of the
// secrets. parse reads a body that is believed to be the provider's.
func NewWebhooks(provider, header string, secrets []string, now func() time.Time, parse func(body []byte) (Notification, error)) (*Webhooks, error) {
	s, err := newSignatures(header, secrets, now)
	if err != nil {
		return nil, err
	}
	return &Webhooks{provider, s, parse}, nil
}

// SimulatorWebhooks reads the notifications of provider/simulator.
func SimulatorWebhooks(secrets []string, now func() time.Time) (*Webhooks, error) {
	return NewWebhooks("simulator", "Provider-Signature", secrets, now, parseSimulatorEvent)
}

// Provider is the name in the webhook's URL.
func (w *Webhooks) Provider() string { return w.provider }

// Read checks the signature before it looks at the body. Its errors are
// ErrSignature, ErrSignatureTime and ErrNotification.
func (w *Webhooks) Read(h http.Header, body []byte) (Notification, error) {
	if len(body) > maxNotification {
		return Notification{}, ErrNotification
	}
	if err := w.signatures.verify(h, body); err != nil {
		return Notification{}, err
	}
	n, err := w.parse(body)
	if err == nil && (!text.Name(n.ID, maxName) || len(n.ID) > maxName) {
		err = errors.New("it has no id that can be kept")
	}
	if err != nil {
		return Notification{}, fmt.Errorf("%w: %w", ErrNotification, err)
	}
	// What cannot name anything here names nothing: the notification is still a hint.
	for _, name := range []*string{&n.Reference, &n.Key, &n.OperationID} {
		if !text.Name(*name, maxName) {
			*name = ""
		}
	}
	n.Type = text.Line(n.Type, maxType)
	n.Provider = w.provider
	return n, nil
}

func parseSimulatorEvent(body []byte) (Notification, error) {
	var e struct {
		ID   string          `json:"id"`
		Type string          `json:"type"`
		Data operationAnswer `json:"data"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Notification{}, err
	}
	return Notification{
		ID: e.ID, Type: Printable(e.Type, 64), Reference: e.Data.Reference, Key: e.Data.IdempotencyKey,
		Operation: e.Data.Type, OperationID: e.Data.ID, Declined: e.Data.Status == "declined",
	}, nil
}
