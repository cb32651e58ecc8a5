package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"payments/client"
)

// The service is killed while a receiver holds its first delivery: after another
// start the endpoint has every event of the payment, each signed, and what came
// twice came under one id.
func TestMerchantIsToldOfEveryEventOverAKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	w.vars["PAYMENTS_WEBHOOKS_ALLOW_PRIVATE"] = "true"
	var (
		mu       sync.Mutex
		verifier *standardwebhooks.Webhook
		events   = map[string]map[string]bool{} // the ids under which each event came
		unsigned int
	)
	arrived, dead := make(chan struct{}, 100), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender was killed
		}
		arrived <- struct{}{}
		<-dead
		mu.Lock()
		defer mu.Unlock()
		if verifier.Verify(body, r.Header) != nil {
			unsigned++
		}
		id := decode[struct {
			Data struct {
				EventID string `json:"event_id"`
			}
		}](t, answer{body: body}).Data.EventID
		if events[id] == nil {
			events[id] = map[string]bool{}
		}
		events[id][r.Header.Get("webhook-id")] = true
	}))
	t.Cleanup(receiver.Close)
	s := w.serve(nil)
	made, err := w.merchant(s).CreateWebhookEndpoint(t.Context(), client.WebhookEndpointRequest{URL: receiver.URL, Events: []string{"*"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if verifier, err = standardwebhooks.NewWebhook(made.Value.Secret); err != nil {
		t.Fatal(err)
	}
	w.paid(s, "told", order("told", "pm_card_visa"))
	<-arrived
	s.kill()
	close(dead)
	// The dead one's leases end.
	if _, err := w.db.Exec(t.Context(), `UPDATE webhook_deliveries SET due_at = now() WHERE owner IS NOT NULL`); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.awaitReady()
	w.audited()
	await(t, settleWithin, func() string {
		mu.Lock()
		defer mu.Unlock()
		if want := w.count(`SELECT count(*) FROM outbox`); int64(len(events)) < want || w.count(`SELECT count(*) FROM webhook_deliveries WHERE state <> 'succeeded'`) > 0 {
			return fmt.Sprintf("%d of %d events were delivered", len(events), want)
		}
		return ""
	})
	mu.Lock()
	defer mu.Unlock()
	for id, deliveries := range events {
		if len(deliveries) != 1 {
			t.Errorf("event %s came under %d ids", id, len(deliveries))
		}
	}
	if unsigned > 0 {
		t.Errorf("%d deliveries were not signed", unsigned)
	}
}
