package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"payments/client"
	"payments/internal/api/contracttest"
)

// api is what a merchant's program would use. It sends each call once unless the
// options say otherwise, so that a test sees every answer that was given.
func (w *world) api(s *service, key string, options ...client.Option) *client.Client {
	w.t.Helper()
	c, err := client.New(s.url, key, append([]client.Option{client.WithHTTPClient(w.http), client.WithTries(1)}, options...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// merchant is the demo's first, at the service.
func (w *world) merchant(s *service) *client.Client {
	w.t.Helper()
	return w.api(s, w.vars["PAYMENTS_API_KEY"])
}

// paid is a payment that is waited for and has to have an outcome.
func (w *world) paid(s *service, idempotencyKey string, request client.PaymentRequest) client.Payment {
	w.t.Helper()
	a, err := w.merchant(s).CreatePayment(w.t.Context(), request, &client.CreatePaymentParams{
		IdempotencyKey: idempotencyKey, Prefer: client.Wait(30 * time.Second),
	})
	if err != nil {
		w.t.Fatalf("POST with %s: %v", idempotencyKey, err)
	}
	if a.Status != http.StatusOK {
		w.t.Fatalf("POST with %s: %d %+v", idempotencyKey, a.Status, a.Value)
	}
	return a.Value
}

func (w *world) payment(s *service, id string) client.Payment {
	w.t.Helper()
	a, err := w.merchant(s).GetPayment(w.t.Context(), id, nil)
	if err != nil {
		w.t.Fatalf("GET %s: %v", id, err)
	}
	return a.Value
}

// order of two shirts, 4998 in EUR.
func order(reference, method string) client.PaymentRequest {
	return client.PaymentRequest{
		Amount: 4998, Currency: client.CurrencyEUR, PaymentMethod: method,
		Customer: client.Customer{Reference: "cust-42", Email: "ada@example.com"},
		Order:    client.Order{Reference: reference, Lines: []client.OrderLine{{SKU: "TSHIRT-M", Quantity: 2, UnitAmount: 2499}}},
	}
}

// answer of any server of the world, whole, for tests that are about what is on the wire.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// decode is for clients in goroutines of their own too.
func decode[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Errorf("%v in %s", err, a.body)
	}
	return v
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("a request that is no JSON: %v", err))
	}
	return string(b)
}

// send gives the answer as it came; key is the API key, "" for none.
func (w *world) send(ctx context.Context, method, url, key, body string, header map[string]string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := w.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, b}, err
}

func (w *world) get(url, key string) (answer, error) {
	return w.send(w.t.Context(), http.MethodGet, url, key, "", nil)
}

// post starts a payment as the demo's first merchant.
func (w *world) post(s *service, idempotencyKey string, request client.PaymentRequest, header map[string]string) (answer, error) {
	all := map[string]string{"Idempotency-Key": idempotencyKey}
	maps.Copy(all, header)
	return w.send(w.t.Context(), http.MethodPost, s.url+"/v1/payments", w.vars["PAYMENTS_API_KEY"], encode(request), all)
}

type operation struct{ ID, Reference, Type, Status, Currency, Created string }

// operations of the bank's ledger, oldest first; "" asks for all of it.
func (w *world) operations(reference string) []operation {
	w.t.Helper()
	url := w.vars["PAYMENTS_PROVIDER_URL"] + "/v1/operations"
	if reference != "" {
		url += "?reference=" + reference
	}
	a, err := w.get(url, "")
	if err != nil || a.status != http.StatusOK {
		w.t.Fatalf("GET %s: %d %s %v", url, a.status, a.body, err)
	}
	return decode[struct{ Data []operation }](w.t, a).Data
}

// ledger is what the bank did for a payment, as "authorization succeeded", oldest first.
func (w *world) ledger(paymentID string) []string {
	w.t.Helper()
	var done []string
	for _, o := range w.operations(paymentID) {
		done = append(done, o.Type+" "+o.Status)
	}
	return done
}

var contracts = sync.OnceValues(func() (contracttest.Versions, error) {
	var documents [][]byte
	older, err := filepath.Glob("../internal/api/versions/????-??-??.yaml")
	if err != nil {
		return nil, err
	}
	for _, path := range append(older, "../internal/api/openapi.yaml") {
		document, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		documents = append(documents, document)
	}
	return contracttest.NewVersions(documents...)
})

// httpClient holds every answer of a service's API against the OpenAPI document of its version.
// What comes from elsewhere (the simulator, an admin address) is not of it.
func (w *world) httpClient(transport *http.Transport) *http.Client {
	w.t.Helper()
	c, err := contracts()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	held := contracttest.Transport{Versions: c, Base: transport, Report: func(err error) { w.t.Error(err) }}
	return &http.Client{Timeout: 45 * time.Second, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		if _, elsewhere := w.elsewhere.Load(r.URL.Host); elsewhere {
			return transport.RoundTrip(r)
		}
		return held.RoundTrip(r)
	})}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
