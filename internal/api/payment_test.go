package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
)

func key(value string) []string { return []string{"Idempotency-Key", value} }

func TestAPaymentIsPlacedOnceAndReplayed(t *testing.T) {
	w := newWorld(t)
	first := w.post(w.merchant, good, key("k-1")...)
	if first.status != 202 || first.header.Get("Content-Type") != "application/json" ||
		first.header.Get("Location") != "/v1/payments/"+first.at(t, "id").(string) || first.header.Get("Idempotent-Replayed") != "" ||
		first.header.Get("Cache-Control") != "no-store" || first.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("first: %d %v %s", first.status, first.header, first.body)
	}
	for path, want := range map[string]any{
		"object": "payment", "status": "processing", "amount": "4998", "currency": "EUR", "currency_exponent": "2",
		"amount_captured": "0", "amount_refunded": "0", "payment_method": "pm_card_visa", "capture_method": "automatic",
		"customer.reference": "cust-42", "customer.email": "ada@example.com", "order.reference": "A-1001",
		"order.lines.0.sku": "TSHIRT-M", "order.lines.0.quantity": "2", "order.lines.0.unit_amount": "2499", "failure": nil,
	} {
		if got := first.at(t, path); got != want {
			t.Errorf("%s = %v, want %v", path, got, want)
		}
	}
	n := w.rows()
	// Quoted is the same key; members in another order are the same body.
	same := strings.Replace(strings.Replace(good, `"amount": 4998, `, "", 1), `"currency"`, `"amount":4998,"currency"`, 1)
	for _, replay := range []answer{w.post(w.merchant, good, key(`"k-1"`)...), w.post(w.merchant, same, key("k-1")...)} {
		if replay.status != 202 || replay.body != first.body || replay.header.Get("Idempotent-Replayed") != "true" ||
			replay.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("replay: %d %v %s", replay.status, replay.header, replay.body)
		}
	}
	other := strings.ReplaceAll(good, "A-1001", "A-1002")
	w.refused("other body", w.post(w.merchant, other, key("k-1")...), 422, payment.CodeKeyReused)
	w.refused("no key", w.post(w.merchant, good), 400, payment.CodeKeyMissing)
	w.refused("bad key", w.post(w.merchant, good, key("two words")...), 400, payment.CodeKeyInvalid)
	w.refused("the same order", w.post(w.merchant, good, key("k-2")...), 409, payment.CodeOrderInProgress)
	if got := w.rows(); got != n {
		t.Errorf("%d rows, want %d", got, n)
	}
	// The key and the reference are the merchant's own.
	if a := w.post(w.other, good, key("k-1")...); a.status != 202 || a.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("another merchant's: %d %s", a.status, a.body)
	}
	var inClear bool
	if err := w.pool.QueryRow(t.Context(), `
		SELECT EXISTS (SELECT FROM idempotency_keys WHERE position('ada@example.com'::bytea IN body) > 0)
			OR EXISTS (SELECT FROM outbox WHERE position('ada@example.com'::bytea IN payload) > 0)`).Scan(&inClear); err != nil || inClear {
		t.Errorf("the customer's address lies in the clear: %v %v", inClear, err)
	}
}

func TestAKeyInUseIsAConflictToRetry(t *testing.T) {
	w := newWorld(t)
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := idempotency.Begin(t.Context(), tx, idempotency.Request{MerchantID: w.merchantID, Key: "k-1"}); err != nil {
		t.Fatal(err)
	}
	a := w.post(w.merchant, good, key("k-1")...)
	w.refused("in use", a, 409, payment.CodeKeyInUse)
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("headers %v", a.header)
	}
}

func TestBothModelsShowAPaymentAlike(t *testing.T) {
	w := newWorld(t)
	for i, body := range []string{good, strings.Replace(strings.Replace(good, `, "email": "ada@example.com"`, "", 1), "A-1001", "A-1", 1)} {
		placed := w.post(w.merchant, body, key("k-"+string(rune('a'+i)))...)
		w.project()
		read := w.do("GET", placed.header.Get("Location"), w.merchant, "")
		if read.status != 200 || read.body != placed.body {
			t.Errorf("(-placed +read)\n%s", cmp.Diff(placed.body, read.body))
		}
	}
}

func TestReading(t *testing.T) {
	w := newWorld(t)
	first := w.post(w.merchant, good, key("k-1")...)
	w.project(w.declined(first))
	w.post(w.merchant, strings.ReplaceAll(good, "A-1001", "A-1002"), key("k-2")...)
	w.project()

	path := first.header.Get("Location")
	got := w.do("GET", path, w.operator, "")
	if got.status != 200 || got.at(t, "status") != "failed" || got.at(t, "failure.code") != "card_declined" ||
		got.at(t, "failure.step") != "authorize_payment" || got.at(t, "failure.message") == "" || got.at(t, "customer.email") != "ada@example.com" {
		t.Errorf("payment: %d %s", got.status, got.body)
	}
	line := w.do("GET", path+"/timeline", w.merchant, "")
	if line.status != 200 || line.at(t, "object") != "list" || line.at(t, "data.0.type") != "order.placed" || line.at(t, "data.0.sequence") != "1" ||
		line.at(t, "data.1.status") != "failed" || line.at(t, "data.1.attempts.0.outcome") != "rejected" || line.at(t, "has_more") != false {
		t.Errorf("timeline: %d %s", line.status, line.body)
	}
	page := w.do("GET", "/v1/payments?limit=1", w.merchant, "")
	if page.status != 200 || page.at(t, "object") != "list" || page.at(t, "has_more") != true || page.at(t, "data.0.order.reference") != "A-1002" {
		t.Fatalf("page: %d %s", page.status, page.body)
	}
	next := w.do("GET", "/v1/payments?limit=1&cursor="+page.at(t, "next_cursor").(string), w.merchant, "")
	if next.at(t, "data.0.id") != first.at(t, "id") || next.at(t, "has_more") != false || next.at(t, "next_cursor") != nil {
		t.Errorf("next page: %s", next.body)
	}
	if a := w.do("GET", "/v1/payments?status=failed", w.operator, ""); a.at(t, "data.0.id") != first.at(t, "id") || a.at(t, "has_more") != false {
		t.Errorf("failed ones: %s", a.body)
	}
	if a := w.do("GET", "/v1/payments", w.other, ""); a.body != `{"object":"list","data":[],"has_more":false,"next_cursor":null}` {
		t.Errorf("another merchant's list: %s", a.body)
	}
	if a := w.do("HEAD", path, w.merchant, ""); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
	// Another merchant's, none at all, and no id at all look alike.
	for _, p := range []string{path, path + "/timeline"} {
		w.refused("another merchant's "+p, w.do("GET", p, w.other, ""), 404, payment.CodeNotFound)
	}
	w.refused("none", w.do("GET", "/v1/payments/pay_01jqh0000000000000000000zz", w.merchant, ""), 404, payment.CodeNotFound)
	w.refused("no id", w.do("GET", "/v1/payments/1%00", w.merchant, ""), 404, payment.CodeNotFound)
}

func TestQueryParameters(t *testing.T) {
	w := newWorld(t)
	for query, want := range map[string]string{
		"/v1/payments?s3cret=1":                     "/query parameter_unknown",
		"/v1/payments?limit=0":                      "/query/limit out_of_range",
		"/v1/payments?limit=1&limit=2":              "/query/limit parameter_repeated",
		"/v1/payments?status=s3cret":                "/query/status status_invalid",
		"/v1/payments?cursor=s3cret":                "/query/cursor cursor_invalid",
		"/v1/payments?customer=%zz":                 "/query query_invalid",
		"/v1/payments?status=failed;x=1":            "/query query_invalid",
		"/v1/payments/pay_1?s3cret":                 "/query parameter_unknown",
		"/v1/stock?merchant=s3cret":                 "/query/merchant id_invalid",
		"/v1/stock?merchant=a&merchant=b":           "/query/merchant parameter_repeated",
		"/v1/payments/pay_1/timeline?page=1":        "/query/page parameter_unknown",
		"/v1/payments/pay_1/timeline?limit=0":       "/query/limit out_of_range",
		"/v1/payments/pay_1/timeline?limit=101":     "/query/limit out_of_range",
		"/v1/payments/pay_1/timeline?cursor=s3cret": "/query/cursor cursor_invalid",
	} {
		a := w.do("GET", query, w.operator, "")
		if got := w.refused(query, a, 400, payment.CodeInvalid); len(got) != 1 || got[0] != want || strings.Contains(a.body, "s3cret") {
			t.Errorf("%s: %s", query, a.body)
		}
	}
	a := w.do("POST", "/v1/payments?dry_run=1", w.merchant, good, key("k")...)
	if w.refused("post", a, 400, payment.CodeInvalid); w.rows() != 0 {
		t.Error("a refused post left rows")
	}
}

func TestPreferWait(t *testing.T) {
	w := newWorld(t)
	prefer := append(key("k-1"), "Prefer", "wait=1")
	processing := w.post(w.merchant, good, prefer...)
	if processing.status != 202 || processing.header.Get("Preference-Applied") != "wait=1" || processing.at(t, "status") != "processing" {
		t.Fatalf("without an outcome: %d %v %s", processing.status, processing.header, processing.body)
	}
	w.project(w.declined(processing))
	prefer[3] = `respond-async, wait="31"; x=1`
	settled := w.post(w.merchant, good, prefer...)
	if settled.status != 200 || settled.header.Get("Idempotent-Replayed") != "true" || settled.at(t, "status") != "failed" ||
		settled.header.Get("Preference-Applied") != "wait=30" || settled.header.Get("Location") != processing.header.Get("Location") {
		t.Errorf("replay with an outcome: %d %v %s", settled.status, settled.header, settled.body)
	}
	if again := w.post(w.merchant, good, key("k-1")...); again.status != 202 || again.body != processing.body || again.header.Get("Preference-Applied") != "" {
		t.Errorf("replay without a preference: %d %s", again.status, again.body)
	}

	// On the first call: the outcome comes while the client is held.
	second := make(chan answer)
	go func() {
		second <- w.post(w.merchant, strings.ReplaceAll(good, "A-1001", "A-2"), append(key("k-2"), "Prefer", "wait=20")...)
	}()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var orderID, paymentID string
		err := w.pool.QueryRow(t.Context(), `SELECT o.id, p.id FROM orders o JOIN payments p ON p.order_id = o.id WHERE reference = 'A-2'`).Scan(&orderID, &paymentID)
		if err == nil {
			w.project(w.declined(answer{body: `{"id":"` + paymentID + `","order":{"id":"` + orderID + `"}}`}))
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if a := <-second; a.status != 200 || a.at(t, "status") != "failed" || a.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("held first call: %d %s", a.status, a.body)
	}
}

// held are payments whose outcome does not come; it tells who waits for it, and lets go.
type held struct {
	Orders
	waiting chan string
	release chan bool
}

func (h held) WaitFor(ctx context.Context, merchantID, id string, wait time.Duration, done func(payment.Status) bool) (order.Payment, bool, error) {
	if wait == 0 {
		return h.Orders.WaitFor(ctx, merchantID, id, 0, done)
	}
	select {
	case h.waiting <- id:
	case <-ctx.Done(): // nobody expects it to wait
		return order.Payment{}, false, nil
	}
	select {
	case <-h.release:
	case <-ctx.Done():
	}
	return order.Payment{}, false, nil
}

// A preference may be left aside (RFC 7240): what waits is bounded, and nobody is refused for it.
func TestAWaitTooManyIsNotGranted(t *testing.T) {
	w := newWorld(t)
	h := held{w.api.Orders, make(chan string), make(chan bool)}
	registry := prometheus.NewRegistry()
	w.api.Orders, w.api.Held.WaitsOfMerchant, w.api.Registerer = h, 1, registry
	w.server = w.serve(w.api)
	post := func(key, name string) answer {
		return w.post(key, strings.ReplaceAll(good, "A-1001", name), "Idempotency-Key", name, "Prefer", "wait=30")
	}
	answers := make(chan answer)
	waits := func(key, name string) {
		go func() { answers <- post(key, name) }()
		<-h.waiting
	}
	granted := func() {
		t.Helper()
		h.release <- true
		if a := <-answers; a.status != 202 || a.header.Get("Preference-Applied") != "wait=30" {
			t.Errorf("granted: %d %v %s", a.status, a.header, a.body)
		}
	}
	waits(w.merchant, "A-1")
	if a := post(w.merchant, "A-2"); a.status != 202 || a.header.Get("Preference-Applied") != "" || a.at(t, "status") != "processing" {
		t.Fatalf("one too many of a merchant: %d %v %s", a.status, a.header, a.body)
	}
	settled := w.post(w.merchant, strings.ReplaceAll(good, "A-1001", "A-4"), key("A-4")...)
	w.project(w.declined(settled))
	if a := post(w.merchant, "A-4"); a.status != 200 || a.header.Get("Preference-Applied") != "" || a.at(t, "status") != "failed" {
		t.Fatalf("one too many, whose outcome is there: %d %v %s", a.status, a.header, a.body)
	}
	waits(w.other, "A-1")
	granted()
	granted()
	waits(w.merchant, "A-3")
	granted()
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP payments_http_held_refused_total Requests that were not held, by kind and by bound: merchant (it holds as many as one may) or process (as many as are free).
# TYPE payments_http_held_refused_total counter
payments_http_held_refused_total{bound="merchant",kind="export"} 0
payments_http_held_refused_total{bound="merchant",kind="stream"} 0
payments_http_held_refused_total{bound="merchant",kind="wait"} 2
payments_http_held_refused_total{bound="process",kind="export"} 0
payments_http_held_refused_total{bound="process",kind="stream"} 0
payments_http_held_refused_total{bound="process",kind="wait"} 0
`), "payments_http_held_refused_total"); err != nil {
		t.Error(err)
	}
}

func TestPreferredWait(t *testing.T) {
	for header, want := range map[string]int{
		"": 0, "wait=5": 5, "Wait = 7": 7, `wait="10"`: 10, "wait=30": 30, "wait=31": 30, "wait=99999999999999999999": 30,
		"wait=0": 0, "wait": 0, "wait=": 0, "wait=-1": 0, "wait=1.5": 0, "wait=a": 0, "wait=3, wait=9": 3, "respond-async,wait=4": 4,
		`foo="a,wait=9";b="c,d", wait=2;x=y`: 2, "waiting=9": 0, `wait="`: 0, `"\`: 0,
	} {
		if got := int(preferredWait([]string{header}) / time.Second); got != want {
			t.Errorf("%q: %d s, want %d", header, got, want)
		}
	}
	if got := preferredWait([]string{"return=minimal", "wait=6"}); got != 6*time.Second {
		t.Errorf("two headers: %s", got)
	}
}
