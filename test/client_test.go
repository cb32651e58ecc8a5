package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
)

// answer of any server of the world, whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// payment, problem, list and operation have the members that tests look at.
type payment struct {
	ID             string                                `json:"id"`
	Object         string                                `json:"object"`
	Status         string                                `json:"status"`
	Amount         int64                                 `json:"amount"`
	AmountCaptured int64                                 `json:"amount_captured"`
	Currency       string                                `json:"currency"`
	Failure        *struct{ Code, Step, Message string } `json:"failure"`
	PaymentMethod  string                                `json:"payment_method"`
	Customer       struct{ Reference, Email string }     `json:"customer"`
	Order          struct{ ID, Reference string }        `json:"order"`
}

type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	RequestID                 string `json:"request_id"`
	Errors                    []struct{ Pointer, Code, Message string }
}

type list[T any] struct {
	Object     string  `json:"object"`
	Data       []T     `json:"data"`
	HasMore    bool    `json:"has_more"`
	NextCursor *string `json:"next_cursor"`
}

type operation struct{ ID, Reference, Type, Status, Currency, Created string }

type entry struct {
	Sequence int64
	Type     string
	Status   string
	Attempts []struct{ Step, Outcome string }
}

// decode is for clients in goroutines of their own too.
func decode[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Errorf("%v in %s", err, a.body)
	}
	return v
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

// read gets as the demo's first merchant and fails unless that answers 200.
func read[T any](w *world, url string) T {
	w.t.Helper()
	a, err := w.get(url, w.vars["PAYMENTS_API_KEY"])
	if err != nil {
		w.t.Fatal(err)
	}
	if a.status != http.StatusOK {
		w.t.Fatalf("GET %s: %d %s", url, a.status, a.body)
	}
	return decode[T](w.t, a)
}

// post starts a payment as the demo's first merchant.
func (w *world) post(s *service, idempotencyKey, body string, header map[string]string) (answer, error) {
	all := map[string]string{"Idempotency-Key": idempotencyKey}
	maps.Copy(all, header)
	return w.send(w.t.Context(), http.MethodPost, s.url+"/v1/payments", w.vars["PAYMENTS_API_KEY"], body, all)
}

// paid is post for a payment that is waited for and has to have an outcome.
func (w *world) paid(s *service, idempotencyKey, body string) payment {
	w.t.Helper()
	a, err := w.post(s, idempotencyKey, body, map[string]string{"Prefer": "wait=30"})
	if err != nil {
		w.t.Fatal(err)
	}
	if a.status != http.StatusOK {
		w.t.Fatalf("POST with %s: %d %s", idempotencyKey, a.status, a.body)
	}
	return decode[payment](w.t, a)
}

// order of two shirts, 4998 in EUR.
func order(reference, method string) string {
	return fmt.Sprintf(`{"amount": 4998, "currency": "EUR", "payment_method": %q,
		"customer": {"reference": "cust-42", "email": "ada@example.com"},
		"order": {"reference": %q, "lines": [{"sku": "TSHIRT-M", "quantity": 2, "unit_amount": 2499}]}}`, method, reference)
}

// ledger is what the bank did for a payment, as "authorization succeeded", oldest first.
func (w *world) ledger(paymentID string) []string {
	w.t.Helper()
	var done []string
	for _, o := range read[list[operation]](w, w.vars["PAYMENTS_PROVIDER_URL"]+"/v1/operations?reference="+paymentID).Data {
		done = append(done, o.Type+" "+o.Status)
	}
	return done
}
