package stripe

import (
	"net"
	"net/http"
	"testing"
	"time"

	"payments/internal/provider"
	"payments/internal/provider/providertest"
	"payments/internal/provider/stripe/stripetest"
)

const testKey = "sk_test_12345"

func newClient(t *testing.T, url string, timeout time.Duration) *Client {
	t.Helper()
	c, err := New(testKey, Config{URL: url, Timeout: timeout, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// nobody is an address that refuses connections.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestStripeKeepsTheContract(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		t.Helper()
		srv := stripetest.New(t)
		srv.Account(testKey)
		return providertest.Subject{
			Patient: newClient(t, srv.URL, time.Minute), Hasty: newClient(t, srv.URL, 300*time.Millisecond), Dead: newClient(t, nobody(t), time.Minute),
			Good: "pm_card_visa", Declined: "pm_card_chargeCustomerFail", DeclineCode: "card_declined",
			Strike: func(s providertest.Strike, o provider.OperationType) (undo func()) {
				return srv.Break(stripetest.Fault{Method: http.MethodPost, Path: paths[o], Applied: s == providertest.Applied})
			},
		}
	})
}

// paths of the requests of an operation.
var paths = map[provider.OperationType]string{
	provider.Authorization: "/v1/payment_intents",
	provider.Capture:       "/v1/payment_intents/*/capture",
	provider.Void:          "/v1/payment_intents/*/cancel",
	provider.Refund:        "/v1/refunds",
}
