package stripe

import (
	"errors"
	"net"
	"regexp"
	"testing"
	"time"

	"payments/internal/provider/providertest"
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
	upstream, err := start(t, regexp.MustCompile(`^(http://\S+)$`), "scripts/localstripe.sh")
	if errors.Is(err, errUnavailable) {
		t.Skipf("localstripe (PyPI): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		t.Helper()
		g, url := newGateway(t, upstream)
		return providertest.Subject{
			Patient: newClient(t, url, time.Minute), Hasty: newClient(t, url, 300*time.Millisecond), Dead: newClient(t, nobody(t), time.Minute),
			Good: "pm_card_visa", Declined: "pm_card_chargeCustomerFail", DeclineCode: "card_declined",
			Strike: g.strike,
		}
	})
}
