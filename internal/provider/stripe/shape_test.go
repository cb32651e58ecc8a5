package stripe

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"payments/internal/provider"
)

// stripe-mock holds every request against Stripe's OpenAPI description and
// answers with an example of the right shape, about another payment.
func TestRequestsHaveTheShapeThatStripeDescribes(t *testing.T) {
	address, err := start(t, regexp.MustCompile(`Listening for HTTP at address: (\S+)$`),
		"sh", "-c", `exec "$(go -C tools tool -n stripe-mock)" -http-addr 127.0.0.1:0`)
	if err != nil {
		t.Fatal(err)
	}
	mock := &url.URL{Scheme: "http", Host: address}
	var refused []string
	requests := 0
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(mock) },
		ModifyResponse: func(resp *http.Response) error {
			requests++
			if resp.StatusCode != http.StatusOK {
				body, _ := io.ReadAll(resp.Body)
				refused = append(refused, resp.Request.Method+" "+resp.Request.URL.Path+" "+string(body))
			}
			return nil
		},
	}
	srv := httptest.NewServer(proxy)
	defer srv.Close()
	c := newClient(t, srv.URL, time.Minute)
	for _, o := range []provider.OperationType{provider.Authorization, provider.Capture, provider.Void, provider.Refund} {
		op := operation(o)
		// The shape is right and the content another's: nothing of it is believed.
		if r := c.Execute(t.Context(), op); r.Outcome != provider.Unknown || !strings.HasSuffix(r.Err.Error(), "the answer is not about this operation") {
			t.Errorf("%s: %+v", o, r)
		}
		if r := c.Lookup(t.Context(), op); r.Err != nil && !strings.HasSuffix(r.Err.Error(), "the answer is not about this operation") {
			t.Errorf("lookup of %s: %+v", o, r)
		}
	}
	if s, err := c.Inspect(t.Context(), provider.Payment{Reference: reference, Authorization: "pi_1"}); err == nil {
		t.Errorf("another's PaymentIntent was believed: %+v", s)
	}
	_, _ = c.Inspect(t.Context(), provider.Payment{Reference: reference})
	for _, cursor := range []string{"", listRefunds + ":", listDisputes + ":", listIntents + ":pi_1"} {
		if _, err := c.List(t.Context(), time.Now().Add(-time.Hour), time.Now(), cursor); err != nil {
			t.Errorf("list %q: %v", cursor, err)
		}
	}
	if len(refused) > 0 || requests < 14 {
		t.Errorf("%d requests, refused were %q", requests, refused)
	}

	// The stand-in does refuse what is not described.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/v1/payment_intents", strings.NewReader("amount=1&currency=eur&color=red"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testKey)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || len(refused) != 1 {
		t.Errorf("a parameter that does not exist was answered %d", resp.StatusCode)
	}
}
