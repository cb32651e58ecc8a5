package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"payments/internal/payment"
)

// mistake is one of an integrator's: the request, and what of the answer leads on.
type mistake struct {
	about        string
	method, path string
	key          string   // no: none; else the merchant's
	headers      []string // name, value, …
	body         string
	status       int
	code         payment.Code
	pointer      string // of the one error that is expected; empty: of none
	word         string // that helps, in detail or in that error's message
}

const noKey = "no"

// mistakes are made by nearly everybody who writes a first client.
func (w *world) mistakes(t *testing.T, paid answer, cursor string) []mistake {
	t.Helper()
	id := paid.at(t, "id").(string)
	one := key("k-mistake")
	body := func(old, replacement string) string { return with(t, old, replacement) }
	hook := func(address, events string) string { return fmt.Sprintf(`{"url": %q, "events": %s}`, address, events) }
	plain := func(headers ...string) []string { return append(headers, "Authorization", "Bearer "+w.merchant) }
	const (
		unauthenticated, invalid, notFound = payment.CodeUnauthenticated, payment.CodeInvalid, payment.CodeNotFound
		pay, hooks                         = "/v1/payments", "/v1/webhook_endpoints"
	)
	return []mistake{
		// The key.
		{"no key", "GET", pay, noKey, nil, "", 401, unauthenticated, "", "Authorization header is missing"},
		{"the key without Bearer", "GET", pay, noKey, []string{"Authorization", w.merchant}, "", 401, unauthenticated, "", "Bearer is missing"},
		{"curl -u", "GET", pay, noKey, []string{"Authorization", "Basic " + w.merchant}, "", 401, unauthenticated, "", "another scheme than Bearer"},
		{"an unset variable", "GET", pay, noKey, []string{"Authorization", "Bearer "}, "", 401, unauthenticated, "", "no API key after the word Bearer"},
		{"the key in another header", "GET", pay, noKey, []string{"X-Api-Key", w.merchant}, "", 401, unauthenticated, "", "Authorization: Bearer"},
		{"a mistyped key", "GET", pay, noKey, []string{"Authorization", "Bearer " + w.merchant[:len(w.merchant)-1]}, "", 401, unauthenticated, "", "not valid"},
		{"an operator's key", "POST", pay, noKey, append(key("k"), "Authorization", "Bearer "+w.operator), good, 403, payment.CodeForbidden, "", "role"},
		{"a merchant's key for stock", "PUT", "/v1/stock", "", nil, `{"sku": "MUG", "on_hand": 1}`, 403, payment.CodeForbidden, "", "role"},
		// The path.
		{"no version in the path", "POST", "/payments", "", one, good, 404, notFound, "", "/v1/"},
		{"a slash at the end", "GET", pay + "/", "", nil, "", 404, notFound, "", "slash"},
		{"another method", "PUT", pay, "", nil, good, 405, codeMethodNotAllowed, "", "POST"},
		{"the order's id", "GET", pay + "/" + paid.at(t, "order.id").(string), "", nil, "", 404, notFound, "", "pay_"},
		{"half an id", "GET", pay + "/" + id[:20], "", nil, "", 404, notFound, "", "26 characters"},
		{"somebody else's payment", "GET", pay + "/pay_" + freshID, "", nil, "", 404, notFound, "", "no such"},
		// The headers.
		{"no Idempotency-Key", "POST", pay, "", nil, good, 400, payment.CodeKeyMissing, "", "Idempotency-Key"},
		{"a key of two words", "POST", pay, "", key("two words"), good, 400, payment.CodeKeyInvalid, "", "visible ASCII"},
		{"one key for two payments", "POST", pay, "", key("k-paid"), body("A-1001", "A-1002"), 422, payment.CodeKeyReused, "", "new key"},
		{"a second payment of an order", "POST", pay, "", one, good, 409, payment.CodeOrderInProgress, "", "in progress"},
		{"a form", "POST", pay, "", append(one, "Content-Type", "application/x-www-form-urlencoded"), "amount=4998", 415, codeContentType, "", "application/json"},
		{"no content type", "POST", pay, noKey, plain("Idempotency-Key", "k-mistake", "Content-Type", ""), good, 415, codeContentType, "", "Content-Type header is missing"},
		{"a compressed body", "POST", pay, "", append(one, "Content-Encoding", "gzip"), good, 415, codeContentType, "", "Content-Encoding"},
		{"a version that is none", "GET", pay, "", []string{"Payments-Version", "2026-11-02"}, "", 400, codeVersionUnknown, "", "2026-11-28"},
		{"another stream's event id", "GET", "/v1/events", "", []string{"Last-Event-ID", "evt_1"}, "", 400, codeLastEventIDInvalid, "", "Last-Event-ID"},
		// The body.
		{"no body", "POST", pay, noKey, plain("Idempotency-Key", "k-mistake"), "", 400, codeJSONInvalid, "", "empty"},
		{"a body that is no JSON", "POST", pay, "", one, "{'amount': 4998}", 400, codeJSONInvalid, "", "is not JSON"},
		{"a comma too many", "POST", pay, "", one, body(`2499}]}}`, `2499}]},}`), 400, codeJSONInvalid, "", "is not JSON"},
		{"a cut body", "POST", pay, "", one, good[:len(good)-1], 400, codeJSONInvalid, "", "ends too early"},
		{"a body of 70 KB", "POST", pay, "", one, body("cust-42", strings.Repeat("x", 70_000)), 413, codeBodyTooLarge, "", "65536"},
		{"a decimal amount", "POST", pay, "", one, body("4998", "49.98"), 400, invalid, "/amount", "integer"},
		{"an amount in quotes", "POST", pay, "", one, body("4998", `"4998"`), 400, invalid, "/amount", "integer"},
		{"an amount of nothing", "POST", pay, "", one, body("4998", "0"), 400, invalid, "/amount", "minor units"},
		{"an amount that is not the lines'", "POST", pay, "", one, body("4998", "2499"), 400, invalid, "/amount", "sum of the lines"},
		{"a currency in lower case", "POST", pay, "", one, body("EUR", "eur"), 400, invalid, "/currency", "capitals"},
		{"a currency's sign", "POST", pay, "", one, body("EUR", "€"), 400, invalid, "/currency", "ISO 4217"},
		{"a card number", "POST", pay, "", one, body("pm_card_visa", "4242424242424242"), 400, invalid, "/payment_method", "never a card number"},
		{"no customer", "POST", pay, "", one, body(`"customer": {"reference": "cust-42", "email": "ada@example.com"},`, ""), 400, invalid, "/customer", "required"},
		{"another spelling of a member", "POST", pay, "", one, body(`"payment_method"`, `"paymentMethod"`), 400, invalid, "/paymentMethod", "payment_method"},
		{"a member of a line that is none", "POST", pay, "", one, body(`"unit_amount"`, `"price"`), 400, invalid, "/order/lines/0/price", "unit_amount"},
		{"a null", "POST", pay, "", one, body(`"ada@example.com"`, "null"), 400, invalid, "/customer/email", "left out"},
		{"a member twice", "POST", pay, "", one, body(`"amount": 4998`, `"amount": 4998, "amount": 4998`), 400, invalid, "/amount", "once"},
		{"one line and no list", "POST", pay, "", one, strings.NewReplacer("[{", "{", "}]", "}").Replace(good), 400, invalid, "/order/lines", "an array"},
		{"a second line without SKU", "POST", pay, "", one, body(`2499}]`, `2499}, {"quantity": 1, "unit_amount": 0}]`), 400, invalid, "/order/lines/1/sku", "required"},
		{"a blank SKU", "POST", pay, "", one, body("TSHIRT-M", " "), 400, invalid, "/order/lines/0/sku", "blank"},
		{"no pieces", "POST", pay, "", one, body(`"quantity": 2`, `"quantity": 0`), 400, invalid, "/order/lines/0/quantity", "from 1"},
		{"an address with a name", "POST", pay, "", one, body("ada@example.com", "Ada <ada@example.com>"), 400, invalid, "/customer/email", "bare email address"},
		{"a negative refund", "POST", pay + "/" + id + "/refunds", "", one, `{"amount": -1}`, 400, invalid, "/amount", "from 1"},
		{"a refund of what is not captured", "POST", pay + "/" + id + "/refunds", "", one, `{"amount": 1}`, 409, payment.CodeActionNotAllowed, "", "Only a succeeded payment"},
		{"a capture of what is captured by itself", "POST", pay + "/" + id + "/capture", "", nil, "", 409, payment.CodeActionNotAllowed, "", "capture"},
		{"a webhook without TLS", "POST", hooks, "", one, hook("http://example.com/", `["*"]`), 400, invalid, "/url", "https://"},
		{"a webhook to this machine", "POST", hooks, "", one, hook("https://127.0.0.1/", `["*"]`), 400, invalid, "/url", "private, local"},
		{"an event that is none", "POST", hooks, "", one, hook("https://example.com/", `["payment.captured", "payment.succeeded"]`), 400, invalid, "/events/1", "order.confirmed"},
		// The query.
		{"a parameter that is none", "GET", pay + "?state=failed", "", nil, "", 400, invalid, "/query/state", "status"},
		{"pages by number", "GET", pay + "/" + id + "/timeline?page=2", "", nil, "", 400, invalid, "/query/page", "cursor"},
		{"another API's filter", "GET", pay + "?created[gte]=2026-11-01", "", nil, "", 400, invalid, "/query/created[gte]", "created_from"},
		{"a status that is none", "GET", pay + "?status=paid", "", nil, "", 400, invalid, "/query/status", "succeeded"},
		{"a page that is too long", "GET", pay + "?limit=1000", "", nil, "", 400, invalid, "/query/limit", "from 1 to 100"},
		{"a day for a time", "GET", pay + "?created_from=2026-11-01", "", nil, "", 400, invalid, "/query/created_from", "2026-11-01T00:00:00Z"},
		{"a + that is not escaped", "GET", pay + "?created_from=2026-11-01T00:00:00+01:00", "", nil, "", 400, invalid, "/query/created_from", "%2B"},
		{"a cursor with another filter", "GET", pay + "?status=failed&cursor=" + url.QueryEscape(cursor), "", nil, "", 400, invalid, "/query/cursor", "same filters"},
		{"a group that is none", "GET", "/v1/reports/revenue?group_by=month,customer", "", nil, "", 400, invalid, "/query/group_by", "currency"},
		{"a report's days the wrong way round", "GET", "/v1/reports/revenue?from=2026-02-02&to=2026-02-01", "", nil, "", 400, invalid, "/query/to", "after from"},
	}
}

func TestTypicalMistakesOfAnIntegrator(t *testing.T) {
	w := newWorld(t)
	paid := w.post(w.merchant, good, key("k-paid")...)
	w.placed("A-2", "")
	w.project()
	cursor := w.do("GET", "/v1/payments?limit=1", w.merchant, "").at(t, "next_cursor").(string)
	rows := w.rows()
	all := w.mistakes(t, paid, cursor)
	if len(all) < 35 {
		t.Fatalf("only %d mistakes", len(all))
	}
	for _, m := range all {
		bearer := w.merchant
		if m.key == noKey {
			bearer = ""
		}
		a := w.do(m.method, m.path, bearer, m.body, m.headers...)
		errs := w.refused(m.about, a, m.status, m.code)
		var p problemDocument
		if err := json.Unmarshal([]byte(a.body), &p); err != nil {
			t.Fatal(err)
		}
		text := p.Detail
		switch {
		case m.pointer == "" && m.code != codeJSONInvalid && len(errs) > 0, m.pointer != "" && (len(errs) == 0 || !strings.HasPrefix(errs[0], m.pointer+" ")):
			t.Errorf("%s: errors %q, want one at %q", m.about, errs, m.pointer)
		case len(p.Errors) > 0:
			text += " " + p.Errors[0].Message
		}
		if !strings.Contains(text, m.word) {
			t.Errorf("%s: %q does not have %q", m.about, text, m.word)
		}
		if strings.Contains(a.body, w.merchant) || strings.Contains(a.body, "4242") {
			t.Errorf("%s: the answer repeats a secret: %s", m.about, a.body)
		}
	}
	if n := w.rows(); n != rows {
		t.Errorf("%d rows, there were %d", n, rows)
	}
}
