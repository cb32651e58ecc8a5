package test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"payments/client"
)

// canary is in what is submitted and must be in no answer.
const canary = "canary-5f3a9c"

// valid is a body in which each refusal has one thing replaced.
const valid = `{"amount": 4998, "currency": "EUR", "payment_method": "pm_card_visa",` +
	` "customer": {"reference": "canary-5f3a9c", "email": "canary-5f3a9c@example.com"},` +
	` "order": {"reference": "A-1", "lines": [{"sku": "TSHIRT-M", "quantity": 2, "unit_amount": 2499}]}}`

type refusal struct {
	about      string
	old, with  string // in valid
	query      string
	header     map[string]string
	status     int
	code       string
	at, reason string // of the first of errors; "" and "" for none
}

var refusals = []refusal{
	{about: "missing amount", old: `"amount": 4998, `, status: 400, code: "validation_failed", at: "/amount", reason: "missing"},
	{about: "missing currency", old: `"currency": "EUR", `, status: 400, code: "validation_failed", at: "/currency", reason: "missing"},
	{about: "missing method", old: `"payment_method": "pm_card_visa",`, status: 400, code: "validation_failed", at: "/payment_method", reason: "missing"},
	{about: "missing customer", old: ` "customer": {"reference": "canary-5f3a9c", "email": "canary-5f3a9c@example.com"},`, status: 400, code: "validation_failed", at: "/customer", reason: "missing"},
	{about: "missing sku", old: `"sku": "TSHIRT-M", `, status: 400, code: "validation_failed", at: "/order/lines/0/sku", reason: "missing"},
	{about: "null", old: `4998`, with: `null`, status: 400, code: "validation_failed", at: "/amount", reason: "null_invalid"},
	{about: "unknown member", old: `"amount"`, with: `"tip": 1, "amount"`, status: 400, code: "validation_failed", at: "/tip", reason: "member_unknown"},
	{about: "unknown member in a line", old: `"sku"`, with: `"color": "red", "sku"`, status: 400, code: "validation_failed", at: "/order/lines/0/color", reason: "member_unknown"},
	{about: "unknown member that is data", old: `"amount"`, with: `"canary-5f3a9c": 1, "amount"`, status: 400, code: "validation_failed", at: "", reason: "member_unknown"},
	{about: "a member in other letters", old: `"amount"`, with: `"Amount"`, status: 400, code: "validation_failed", at: "/Amount", reason: "member_unknown"},
	{about: "duplicate member", old: `"amount": 4998`, with: `"amount": 4998, "amount": 4998`, status: 400, code: "validation_failed", at: "/amount", reason: "member_duplicate"},
	{about: "wrong sum", old: `4998`, with: `4999`, status: 400, code: "validation_failed", at: "/amount", reason: "amount_mismatch"},
	{about: "no currency of payments", old: `"EUR"`, with: `"XXX"`, status: 400, code: "validation_failed", at: "/currency", reason: "currency_invalid"},
	{about: "quantity 0", old: `"quantity": 2`, with: `"quantity": 0`, status: 400, code: "validation_failed", at: "/order/lines/0/quantity", reason: "out_of_range"},
	{about: "amount 2^63", old: `4998`, with: `9223372036854775808`, status: 400, code: "validation_failed", at: "/amount", reason: "integer_invalid"},
	{about: "amount 2^63-1", old: `4998`, with: `9223372036854775807`, status: 400, code: "validation_failed", at: "/amount", reason: "out_of_range"},
	{about: "a sum beyond 2^63", old: `"quantity": 2, "unit_amount": 2499`, with: `"quantity": 1000000, "unit_amount": 9223372036854775807`, status: 400, code: "validation_failed", at: "/order/lines/0/unit_amount", reason: "out_of_range"},
	{about: "negative amount", old: `4998`, with: `-4998`, status: 400, code: "validation_failed", at: "/amount", reason: "out_of_range"},
	{about: "fraction", old: `4998`, with: `4998.0`, status: 400, code: "validation_failed", at: "/amount", reason: "integer_invalid"},
	{about: "exponent", old: `4998`, with: `4998e0`, status: 400, code: "validation_failed", at: "/amount", reason: "integer_invalid"},
	{about: "a number as text", old: `4998`, with: `"4998"`, status: 400, code: "validation_failed", at: "/amount", reason: "integer_invalid"},
	{about: "NUL, escaped", old: `"A-1"`, with: `"A\u0000-1"`, status: 400, code: "validation_failed", at: "/order/reference", reason: "text_invalid"},
	{about: "NUL, bare", old: `"A-1"`, with: "\"A\x00-1\"", status: 400, code: "json_invalid", at: "/order/reference", reason: "json_invalid"},
	{about: "not UTF-8", old: `"A-1"`, with: "\"A\xff-1\"", status: 400, code: "json_invalid", at: "/order/reference", reason: "json_invalid"},
	{about: "half a surrogate pair", old: `"A-1"`, with: `"A\ud800-1"`, status: 400, code: "json_invalid", at: "/order/reference", reason: "json_invalid"},
	{about: "65 KiB", old: `{"amount"`, with: `{` + strings.Repeat(" ", 65<<10-len(valid)) + `"amount"`, status: 413, code: "body_too_large"},
	{about: "65 KiB in a member", old: `"A-1"`, with: `"` + strings.Repeat("A", 65<<10) + `"`, status: 413, code: "body_too_large"},
	{about: "content type", header: map[string]string{"Content-Type": "text/plain"}, status: 415, code: "content_type_unsupported"},
	{about: "charset", header: map[string]string{"Content-Type": "application/json; charset=latin1"}, status: 415, code: "content_type_unsupported"},
	{about: "compressed", header: map[string]string{"Content-Encoding": "gzip"}, status: 415, code: "content_type_unsupported"},
	{about: "truncated in a member", old: valid[len(valid)/2:], status: 400, code: "json_invalid", at: "/customer/email", reason: "json_invalid"},
	{about: "truncated by a brace", old: `2499}]}}`, with: `2499}]}`, status: 400, code: "json_invalid", at: "", reason: "json_invalid"},
	{about: "trailing bytes", old: `2499}]}}`, with: `2499}]}} {}`, status: 400, code: "json_invalid", at: "", reason: "json_invalid"},
	{about: "an array", old: valid, with: `[` + valid + `]`, status: 400, code: "validation_failed", at: "", reason: "type_invalid"},
	{about: "null alone", old: valid, with: `null`, status: 400, code: "validation_failed", at: "", reason: "type_invalid"},
	{about: "no lines", old: `[{"sku": "TSHIRT-M", "quantity": 2, "unit_amount": 2499}]`, with: `[]`, status: 400, code: "validation_failed", at: "/order/lines", reason: "out_of_range"},
	{about: "unknown query parameter", query: "?canary-5f3a9c=1", status: 400, code: "validation_failed", at: "/query", reason: "parameter_unknown"},
	{about: "a query that is none", query: "?%zz", status: 400, code: "validation_failed", at: "/query", reason: "query_invalid"},
	{about: "no key", header: map[string]string{"Idempotency-Key": ""}, status: 400, code: "idempotency_key_missing"},
	{about: "a key of 256 characters", header: map[string]string{"Idempotency-Key": strings.Repeat("k", 256)}, status: 400, code: "idempotency_key_invalid"},
	{about: "a key with a space", header: map[string]string{"Idempotency-Key": "canary-5f3a9c k"}, status: 400, code: "idempotency_key_invalid"},
	{about: "an unknown API key", header: map[string]string{"Authorization": "Bearer " + canary}, status: 401, code: "unauthenticated"},
}

func TestWhatIsRefusedLeavesNoRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	s := w.serve(nil)
	w.paid(s, "before", order("before", "pm_card_visa"))
	w.settled()                            // and every table that fills by itself has its rows
	await(t, settleWithin, func() string { // two consumers keep the ids of the events
		if n, events := w.count(`SELECT count(*) FROM inbox_messages`), w.count(`SELECT count(*) FROM outbox`); n != 2*events {
			return fmt.Sprintf("%d of %d ids are kept", n, 2*events)
		}
		return ""
	})
	before := w.rows()
	for n, r := range refusals {
		body := valid
		if r.old != "" {
			if body = strings.Replace(valid, r.old, r.with, 1); body == valid {
				t.Fatalf("%s changes nothing", r.about)
			}
		}
		header := map[string]string{"Idempotency-Key": fmt.Sprint("refused-", n)}
		maps.Copy(header, r.header)
		a, err := w.send(t.Context(), http.MethodPost, s.url+"/v1/payments"+r.query, w.vars["PAYMENTS_API_KEY"], body, header)
		if err != nil {
			t.Errorf("%s: %v", r.about, err)
			continue
		}
		r.check(t, a)
	}
	w.cutOff(s)
	for _, q := range []refusal{
		{about: "list: unknown parameter", query: "?canary-5f3a9c=1", status: 400, code: "validation_failed", at: "/query", reason: "parameter_unknown"},
		{about: "list: limit", query: "?limit=101", status: 400, code: "validation_failed", at: "/query/limit", reason: "out_of_range"},
		{about: "list: cursor", query: "?cursor=canary-5f3a9c", status: 400, code: "validation_failed", at: "/query/cursor", reason: "cursor_invalid"},
		{about: "list: NUL", query: "?customer=a%00b", status: 400, code: "validation_failed", at: "/query/customer", reason: "text_invalid"},
	} {
		a, err := w.get(s.url+"/v1/payments"+q.query, w.vars["PAYMENTS_API_KEY"])
		if err != nil {
			t.Fatal(err)
		}
		q.check(t, a)
	}
	after := w.rows()
	for _, counted := range []map[string]int64{before, after} {
		delete(counted, "outbox_checkpoints") // a relay adds to them as time passes,
		delete(counted, "outbox_partitions")  // and a keeper to these
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("refused requests left rows: %s", diff)
	}
	// What was refused under a key is not kept: the key is good for the mended request.
	if p := w.paid(s, "refused-0", order("A-1", "pm_card_visa")); p.Status != "succeeded" {
		t.Errorf("the mended request: %+v", p)
	}
	w.audited()
}

func (r refusal) check(t *testing.T, a answer) {
	t.Helper()
	p := decode[client.Problem](t, a)
	if a.status != r.status || int(p.Status) != r.status || string(p.Code) != r.code || p.Title == "" || p.Detail == "" || p.Type != "/problems/"+r.code ||
		p.RequestID == "" || p.RequestID != a.header.Get("Request-Id") || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %d %v %s", r.about, a.status, a.header, a.body)
	}
	switch {
	case r.reason == "" && len(p.Errors) > 0:
		t.Errorf("%s: errors that name a member: %s", r.about, a.body)
	case r.reason != "" && (len(p.Errors) == 0 || p.Errors[0].Pointer != r.at || p.Errors[0].Code != r.reason || p.Errors[0].Message == ""):
		t.Errorf("%s: want %s at %q: %s", r.about, r.reason, r.at, a.body)
	}
	if strings.Contains(string(a.body), canary) {
		t.Errorf("%s: the answer repeats what was submitted: %s", r.about, a.body)
	}
}

// cutOff sends less than it announced and then closes its side.
func (w *world) cutOff(s *service) {
	t := w.t
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/payments HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nIdempotency-Key: cut\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", w.vars["PAYMENTS_API_KEY"], len(valid), valid[:len(valid)-1])
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { //nolint:forcetypeassert // dialed as TCP
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	refusal{about: "cut off", status: 400, code: "json_invalid", at: "", reason: "json_invalid"}.
		check(t, answer{resp.StatusCode, resp.Header, body})
}
