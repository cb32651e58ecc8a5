package stripetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/stripe/stripe-go/v85"
	"github.com/stripe/stripe-go/v85/webhook"
)

// event is of API v1: https://docs.stripe.com/api/events/object.
type event struct {
	ID         string    `json:"id"`
	Object     string    `json:"object"`
	APIVersion string    `json:"api_version"`
	Created    int64     `json:"created"`
	Data       eventData `json:"data"`
	Livemode   bool      `json:"livemode"`
	Type       string    `json:"type"`
}

type eventData struct {
	Object map[string]any `json:"object"`
}

func (a *Account) emit(eventType string, about any) {
	a.events = append(a.events, &event{
		ID: a.id("evt"), Object: "event", APIVersion: stripe.APIVersion, Created: a.s.now().Unix(),
		Data: eventData{a.render(about, nil)}, Type: eventType,
	})
}

// Notification is an event as a webhook endpoint gets it.
type Notification struct {
	ID, Type string
	Body     []byte
}

// Signed is the header of a delivery at a time, for an endpoint with this secret.
func (n Notification) Signed(secret string, at time.Time) http.Header {
	p := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: n.Body, Secret: secret, Timestamp: at})
	return http.Header{"Stripe-Signature": {p.Header}, "Content-Type": {"application/json; charset=utf-8"}}
}

// Notifications are all events so far, oldest first, delivered or not.
func (a *Account) Notifications() []Notification {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	return a.from(0)
}

func (a *Account) from(first int) (all []Notification) {
	for _, e := range a.events[first:] {
		raw, err := json.Marshal(e)
		if err != nil {
			a.s.t.Errorf("encode an event: %v", err)
		}
		all = append(all, Notification{e.ID, e.Type, raw})
	}
	return all
}

// Take gives the events that neither Take nor Deliver has given, oldest first.
func (a *Account) Take() []Notification {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	all := a.from(a.unsent)
	a.unsent = len(a.events)
	return all
}

// Deliver posts the events that Take would give to a webhook endpoint, and stops at the
// first that is not accepted: it is the first of the next Deliver.
func (a *Account) Deliver(ctx context.Context, url, secret string) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: time.Minute}
	a.s.mu.Lock()
	first := a.unsent
	all := a.from(first)
	a.s.mu.Unlock()
	for n, notification := range all {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(notification.Body))
		if err != nil {
			return fmt.Errorf("deliver %s: %w", notification.Type, err)
		}
		req.Header = notification.Signed(secret, time.Now())
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("deliver %s: %w", notification.Type, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			return fmt.Errorf("deliver %s: the endpoint answered %d", notification.Type, resp.StatusCode)
		}
		a.s.mu.Lock()
		a.unsent = max(a.unsent, first+n+1)
		a.s.mu.Unlock()
	}
	return nil
}
