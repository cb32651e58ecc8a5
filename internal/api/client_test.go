package api

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"payments/client"
	"payments/internal/payment"
)

// shortPauses between a client's tries: what it waits for has happened by then.
var shortPauses = client.WithBackoff(time.Millisecond, 10*time.Millisecond)

// client speaks to a server of the world's as a merchant's program would, with its
// answers held against the document.
func (w *world) client(url, key string, options ...client.Option) *client.Client {
	w.t.Helper()
	c, err := client.New(url, key, append([]client.Option{client.WithHTTPClient(&http.Client{Transport: w.checked()}), shortPauses}, options...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// cutting is a server that does the first requests whole, and then cuts the
// connection where its answer would go out.
func (w *world) cutting(cuts int) *httptest.Server {
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		cut := cuts > 0
		cuts--
		mu.Unlock()
		if cut {
			w.server.Config.Handler.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		w.server.Config.Handler.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(s.Close)
	return s
}

func shirts(reference string) client.PaymentRequest {
	return client.PaymentRequest{
		Amount: 4998, Currency: client.CurrencyEUR, PaymentMethod: "pm_card_visa",
		Customer: client.Customer{Reference: "cust-42", Email: "ada@example.com"},
		Order:    client.Order{Reference: reference, Lines: []client.OrderLine{{SKU: "TSHIRT-M", Quantity: 2, UnitAmount: 2499}}},
	}
}

func TestTheClientPaysOnceOverACutConnection(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.cutting(2).URL, w.merchant)
	a, err := c.CreatePayment(t.Context(), shirts("A-1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Tries != 3 || !a.Replayed() || a.Value.Status != client.PaymentStatusProcessing || a.Value.Amount != 4998 {
		t.Errorf("%+v", a)
	}
	var payments, keys int
	if err := w.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM payments), (SELECT count(*) FROM idempotency_keys)`).Scan(&payments, &keys); err != nil {
		t.Fatal(err)
	}
	if payments != 1 || keys != 1 {
		t.Errorf("%d payments under %d keys, want one", payments, keys)
	}

	// Out of tries the key is told, and asks for the outcome later.
	_, err = w.client(w.cutting(9).URL, w.merchant, client.WithTries(2)).CreatePayment(t.Context(), shirts("A-2"), nil)
	lost, ok := errors.AsType[*client.NoAnswerError](err)
	if !ok {
		t.Fatalf("%v", err)
	}
	again, err := w.client(w.server.URL, w.merchant).CreatePayment(t.Context(), shirts("A-2"), &client.CreatePaymentParams{IdempotencyKey: lost.IdempotencyKey})
	if err != nil || !again.Replayed() || again.Value.Order.Reference != "A-2" {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestTheClientReadsWhatItWrote(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Header.Get(headerReadAfter))
		mu.Unlock()
		w.server.Config.Handler.ServeHTTP(rw, r)
	}))
	t.Cleanup(s.Close)
	c := w.client(s.URL, w.merchant)
	a, err := c.CreatePayment(t.Context(), shirts("A-1"), nil)
	if err != nil || a.ReadAfter() == "" {
		t.Fatalf("%+v, %v", a, err)
	}
	w.project()
	expanded := client.GetPaymentParams{ReadAfter: a.ReadAfter(), Expand: client.Expand{"timeline"}}
	p, err := c.GetPayment(t.Context(), a.Value.ID, &expanded)
	if err != nil || p.Value.ID != a.Value.ID || p.Value.Timeline == nil || len(p.Value.Timeline.Data) != 1 || p.Value.Refunds != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	expanded.IfNoneMatch = p.ETag()
	if p, err = c.GetPayment(t.Context(), a.Value.ID, &expanded); err != nil || !p.NotModified() {
		t.Errorf("the same again is %+v, %v", p, err)
	}
	if want := []string{"", a.ReadAfter(), a.ReadAfter()}; !slices.Equal(asked, want) {
		t.Errorf("the reads were asked for after %q, want %q", asked, want)
	}
	if _, err := c.GetPayment(t.Context(), a.Value.ID, &client.GetPaymentParams{ReadAfter: "of nothing"}); client.CodeOf(err) != client.ProblemCodeReadAfterInvalid {
		t.Error(err)
	}
}

func TestTheClientNamesRefusals(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.server.URL, w.merchant)
	invalid := shirts("A-1")
	invalid.Amount = 1
	_, err := c.CreatePayment(t.Context(), invalid, &client.CreatePaymentParams{IdempotencyKey: "k"})
	p, ok := errors.AsType[*client.ProblemError](err)
	if !ok || p.Code != client.ProblemCodeValidationFailed || p.Status != 400 || p.RequestID == "" || p.IdempotencyKey != "k" ||
		len(p.Errors) != 1 || p.Errors[0].Pointer != "/amount" || p.Errors[0].Code != "amount_mismatch" {
		t.Errorf("%+v, %v", p, err)
	}
	// The key is still free; then it is another request's.
	if _, err := c.CreatePayment(t.Context(), shirts("A-1"), &client.CreatePaymentParams{IdempotencyKey: "k"}); err != nil {
		t.Error(err)
	}
	if _, err := c.CreatePayment(t.Context(), shirts("A-2"), &client.CreatePaymentParams{IdempotencyKey: "k"}); client.CodeOf(err) != client.ProblemCodeIdempotencyKeyReused {
		t.Error(err)
	}
	if _, err := w.client(w.server.URL, "sk_test_nobody").GetPayment(t.Context(), w.ids.New(payment.PrefixPayment), nil); client.CodeOf(err) != client.ProblemCodeUnauthenticated {
		t.Error(err)
	}
}

// Every way that the generated methods encode a request is taken by the service.
func TestTheClientWalksAndExports(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.server.URL, w.merchant)
	var ids []string
	for n := range 5 {
		a, err := c.CreatePayment(t.Context(), shirts("A-"+strconv.Itoa(n)), &client.CreatePaymentParams{Prefer: client.Wait(0)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, a.Value.ID)
	}
	w.project()
	var walked []string
	for p, err := range c.Payments(t.Context(), &client.ListPaymentsParams{
		Status: []client.PaymentStatus{client.PaymentStatusProcessing, client.PaymentStatusFailed}, Customer: "cust-42", Currency: client.CurrencyEUR,
		CreatedFrom: time.Now().Add(-time.Hour), AmountMin: 4998, Sort: client.ListPaymentsParamsSortCreatedAt, Limit: 2, Expand: client.Expand{"refunds", "timeline"},
	}) {
		if err != nil {
			t.Fatal(err)
		}
		walked = append(walked, p.ID)
	}
	if !slices.Equal(walked, ids) {
		t.Errorf("walked are %v of %v", walked, ids)
	}

	resp, err := c.ListPaymentsCSV(t.Context(), &client.ListPaymentsParams{Customer: "cust-42"})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll(); err != nil || len(rows) != 6 {
		t.Errorf("%d rows, %v", len(rows), err)
	}

	e, err := c.CreateWebhookEndpoint(t.Context(), client.WebhookEndpointRequest{URL: "https://shop.example.com/hooks", Events: []string{"*"}}, nil)
	if err != nil || e.Value.Secret == "" {
		t.Fatalf("%+v, %v", e, err)
	}
	if a, err := c.RotateWebhookSecret(t.Context(), e.Value.ID, client.RotateWebhookSecretJSONRequestBody{OverlapSeconds: 60}, nil); err != nil || a.Value.Secret == e.Value.Secret {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := c.DeleteWebhookEndpoint(t.Context(), e.Value.ID); err != nil || a.Status != 204 {
		t.Errorf("%+v, %v", a, err)
	}

	operator := w.client(w.server.URL, w.operator)
	if _, err := operator.SetStock(t.Context(), client.StockRequest{{Merchant: w.merchantID, SKU: "MUG", OnHand: 3}}); err != nil {
		t.Error(err)
	}
	for level, err := range c.Stock(t.Context(), nil) {
		if err != nil || level.SKU != "MUG" || level.OnHand != 3 {
			t.Errorf("%+v, %v", level, err)
		}
	}
	k, err := operator.CreateKey(t.Context(), client.APIKeyRequest{Mode: client.APIKeyModeTest, Role: client.RoleMerchant, Merchant: w.merchantID}, nil)
	if err != nil {
		t.Fatal(err)
	}
	approved, err := w.client(w.server.URL, w.colleague).ApproveKey(t.Context(), k.Value.ID)
	if err != nil || !w.works(k.Value.SecretPart+approved.Value.SecretPart) {
		t.Errorf("%+v, %v", approved, err)
	}
	if a, err := operator.ExplainAuthorization(t.Context(), client.ExplainRequest{Role: client.RoleMerchant, Action: "payments:create"}); err != nil || a.Value.Decision != "allow" {
		t.Errorf("%+v, %v", a, err)
	}
	for _, err := range operator.Sagas(t.Context(), &client.ListSagasParams{Limit: 2}) {
		if err != nil {
			t.Error(err)
		}
	}
}

// A merchant's program follows its payments over connections that break off, and has
// every event once.
func TestTheClientFollowsOverCutConnections(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var bodies []io.Closer
	cut := &http.Client{Transport: cutter(func(r *http.Request) (*http.Response, error) {
		resp, err := w.checked().RoundTrip(r)
		if err == nil {
			mu.Lock()
			bodies = append(bodies, resp.Body)
			mu.Unlock()
		}
		return resp, err
	})}
	follower := w.client(w.server.URL, w.merchant, client.WithHTTPClient(cut))
	c := w.client(w.server.URL, w.merchant)
	var paid []string
	pay := func() {
		a, err := c.CreatePayment(t.Context(), shirts("A-"+strconv.Itoa(len(paid))), nil)
		if err != nil {
			t.Fatal(err)
		}
		paid = append(paid, a.Value.ID)
		w.project()
	}
	head := w.follow("/v1/events", w.merchant, "")
	pay()
	var told []string
	for f, err := range follower.StreamEvents(t.Context(), &client.StreamEventsParams{LastEventID: head.start}) {
		if err != nil {
			t.Fatal(err)
		}
		if f.ID == "" || f.Event.Type != client.EventTypeOrderPlaced || f.Event.Data.Sequence != 1 || f.Event.Data.Amount != 4998 {
			t.Errorf("%+v", f)
		}
		if told = append(told, f.Event.Data.PaymentID); len(told) == 4 {
			break
		}
		mu.Lock()
		for _, b := range bodies {
			b.Close()
		}
		mu.Unlock()
		pay()
	}
	if !slices.Equal(told, paid) {
		t.Errorf("told was of %v, and paid were %v", told, paid)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(bodies) != 4 {
		t.Errorf("there were %d connections, want one for each event", len(bodies))
	}
}

type cutter func(*http.Request) (*http.Response, error)

func (c cutter) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }
