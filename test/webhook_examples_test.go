package test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"payments/client"
	"payments/internal/api/contracttest"
)

// What the OpenAPI document shows of a webhook is what a receiver gets: the headers, and of each type
// of event that a payment can have here the same members, of the same types, as in its example.
func TestDeliveriesLookLikeTheirExamples(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	w.vars["PAYMENTS_WEBHOOKS_ALLOW_PRIVATE"] = "true"
	var (
		mu   sync.Mutex
		seen = map[string]map[string]any{} // by type
	)
	s := w.serve(nil)
	document, err := w.get(s.url+"/openapi.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	contract, err := contracttest.New(document.body)
	if err != nil {
		t.Fatal(err)
	}
	const operation = "/webhooks/event/post"
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender went
		}
		for i, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			if err := contract.Validate(fmt.Sprintf("%s/parameters/%d/schema", operation, i), r.Header.Get(name)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err == nil {
			err = contract.Validate(operation+"/requestBody/content/application~1json/schema", value)
		}
		if err != nil {
			t.Errorf("%v in %s", err, body)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		event, _ := value.(map[string]any)
		seen[fmt.Sprint(event["type"])] = event
	}))
	t.Cleanup(receiver.Close)
	if _, err := w.merchant(s).CreateWebhookEndpoint(t.Context(), client.WebhookEndpointRequest{URL: receiver.URL, Events: []string{"*"}}, nil); err != nil {
		t.Fatal(err)
	}
	paid := w.paid(s, "example-1", order("example-1", "pm_card_visa"))
	w.paid(s, "example-2", order("example-2", "pm_card_declined"))
	w.paid(s, "example-3", order("example-3", "pm_card_capture_declined"))
	short := order("example-4", "pm_card_visa")
	short.Order.Lines[0].SKU = "LAT/78"
	w.paid(s, "example-4", short)
	if _, err := w.merchant(s).CreateRefund(t.Context(), paid.ID, client.RefundRequest{Amount: 1000, Reason: "too small"}, nil); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"order.placed", "stock.reserved", "stock.rejected", "payment.authorized", "payment.declined", "payment.captured", "payment.voided", "stock.released",
		"order.confirmed", "order.failed", "refund.requested", "refund.succeeded",
	}
	await(t, settleWithin, func() string {
		mu.Lock()
		defer mu.Unlock()
		for _, kind := range want {
			if seen[kind] == nil {
				return kind + " was not delivered"
			}
		}
		return ""
	})
	mu.Lock()
	defer mu.Unlock()
	for kind, event := range seen {
		example, ok := contract.Example(operation + "/requestBody/content/application~1json/examples/" + kind)
		if !ok {
			t.Errorf("there is no example of %s", kind)
			continue
		}
		if got, shown := shape("", event), shape("", example); !slices.Equal(got, shown) {
			t.Errorf("%s was delivered with\n%s, and its example has\n%s", kind, strings.Join(got, "\n"), strings.Join(shown, "\n"))
		}
	}
}

// shape is every member of a JSON value with its type.
func shape(at string, value any) (members []string) {
	object, ok := value.(map[string]any)
	if !ok {
		kind := "text"
		if _, text := value.(string); !text {
			kind = "number"
		}
		return []string{at + ": " + kind}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		members = append(members, shape(at+"/"+name, object[name])...)
	}
	return members
}
