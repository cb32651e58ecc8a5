package api

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"payments/internal/access"
	"payments/internal/payment"
)

var update = flag.Bool("update", false, "write testdata/routes.golden anew")

const routesGolden = "testdata/routes.golden"

// Who may call which route, and whose rows that is about: the whole of it.
func TestRouteMatrix(t *testing.T) {
	a := authorizer(t)
	var b strings.Builder
	line := func(cells ...string) {
		row := fmt.Sprintf("%-6s %-65s %-18s", cells[0], cells[1], cells[2])
		for _, c := range cells[3:] {
			row += fmt.Sprintf(" %-15s", c)
		}
		b.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	head := []string{"method", "pattern", "action"}
	for _, r := range access.Roles() {
		head = append(head, string(r))
	}
	line(head...)
	for _, rt := range (&server{}).routes() {
		if rt.signed {
			line(rt.method, rt.pattern, "(signed body)")
			continue
		}
		if rt.public {
			line(rt.method, rt.pattern, "(public)")
			continue
		}
		cells, somebody := []string{rt.method, rt.pattern, string(rt.action)}, false
		for _, r := range access.Roles() {
			p := access.Principal{KeyID: "key_1", Role: r}
			if r.OfMerchant() {
				p.MerchantID = "mer_1"
			}
			d, err := a.Authorize(t.Context(), p, rt.action)
			cell := "-"
			if _, all := d.Scope.Merchant(); err == nil && all {
				cell = "all"
			} else if err == nil {
				cell = "own"
			}
			somebody = somebody || err == nil
			cells = append(cells, cell)
		}
		if !somebody {
			t.Errorf("nobody may call %s %s", rt.method, rt.pattern)
		}
		line(cells...)
	}
	if *update {
		if err := os.WriteFile(routesGolden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(routesGolden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the routes come to\n%s\nand %s (-update writes it) says\n%s", b.String(), routesGolden, want)
	}
}

func TestARouteWithoutAnActionDoesNotStart(t *testing.T) {
	if err := check((&server{}).routes()); err != nil {
		t.Fatal(err)
	}
	for name, rt := range map[string]route{
		"no action": {}, "an unknown action": {action: "payments:steal"}, "both": {action: access.PaymentsRead, signed: true},
	} {
		if err := check([]route{rt}); err == nil {
			t.Errorf("%s is served", name)
		}
	}
}

func TestTheCustomersAddressIsMasked(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.project()
	for key, want := range map[string]string{
		w.merchant: "ada@example.com", w.reader: "ada@example.com", w.operator: "ada@example.com", w.support: masked, w.auditor: masked,
	} {
		one, page := w.do("GET", "/v1/payments/"+id, key, ""), w.do("GET", "/v1/payments", key, "")
		if one.status != 200 || one.at(t, "customer.email") != want || page.status != 200 || page.at(t, "data.0.customer.email") != want {
			t.Errorf("want %s: %d %s %d %s", want, one.status, one.body, page.status, page.body)
		}
	}
}

// Who does not see what is confidential sees by a fingerprint which payments have the
// same payment method, and no more.
func TestThePaymentMethodIsMasked(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.placed("A-2", "")
	w.project()
	w.refreshReports()
	fingerprint := w.methods.Fingerprints("pm_card_visa")[0]
	for key, want := range map[string]string{
		w.merchant: "pm_card_visa", w.reader: "pm_card_visa", w.operator: "pm_card_visa", w.support: fingerprint, w.auditor: fingerprint,
	} {
		for path, member := range map[string]string{
			"/v1/payments/" + id: "payment_method", "/v1/payments?payment_method=" + want: "data.1.payment_method",
			"/v1/payments?payment_method=pm_card_visa": "data.0.payment_method",
		} {
			if a := w.do("GET", path, key, ""); a.status != 200 || a.at(t, member) != want {
				t.Errorf("%s: %d %s, want %s", path, a.status, a.body, want)
			}
		}
		if a := w.do("GET", "/v1/payments?payment_method=pm_card_vis", key, ""); a.status != 200 || len(a.at(t, "data").([]any)) != 0 {
			t.Errorf("another's: %d %s", a.status, a.body)
		}
		a := w.do("GET", "/v1/reports/approval_rate", key, "")
		if a.status != 200 || a.at(t, "data.0.payment_method") != want || a.at(t, "data.0.payments") != "2" || strings.Contains(a.body, "ciphertext") || strings.Contains(a.body, "pay_") {
			t.Errorf("report: %d %s, want %s", a.status, a.body, want)
		}
	}
	// A row from before there were ciphertexts has the token itself.
	if _, err := w.pool.Exec(t.Context(), `
		UPDATE payment_view SET payment_method = 'pm_card_visa', payment_method_ciphertext = NULL WHERE payment_id = $1`, id); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{w.merchant: "pm_card_visa", w.auditor: fingerprint} {
		if a := w.do("GET", "/v1/payments/"+id, key, ""); a.status != 200 || a.at(t, "payment_method") != want {
			t.Errorf("from before: %d %s, want %s", a.status, a.body, want)
		}
	}
}

func TestAWebhooksURLIsMasked(t *testing.T) {
	w := newWorld(t)
	id := w.newEndpoint(w.merchant, "k").at(t, "id").(string)
	whole, bare := "https://hooks.example.com/payments", "https://hooks.example.com/"+masked
	for key, want := range map[string]string{w.merchant: whole, w.reader: whole, w.operator: whole, w.support: bare, w.auditor: bare} {
		one, page := w.do("GET", "/v1/webhook_endpoints/"+id, key, ""), w.do("GET", "/v1/webhook_endpoints", key, "")
		if one.status != 200 || one.at(t, "url") != want || page.status != 200 || page.at(t, "data.0.url") != want {
			t.Errorf("want %s: %d %s %d %s", want, one.status, one.body, page.status, page.body)
		}
	}
}

func TestSupportRefundsInTheMerchantsName(t *testing.T) {
	w := newWorld(t)
	large := strings.Replace(strings.Replace(good, "4998", "29994", 1), `"quantity": 2`, `"quantity": 12`, 1)
	large = strings.Replace(strings.Replace(large, "29994", "29988", 1), "A-1001", "A-2", 1)
	a := w.post(w.merchant, large, key("k")...)
	if a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	id := a.at(t, "id").(string)
	w.project()
	w.make(id, payment.StatusSucceeded)
	path := "/v1/payments/" + id + "/refunds"
	n := w.rows()
	w.refused("over the limit", w.do("POST", path, w.support, `{"amount": 10001}`, key("s")...), 403, payment.CodeForbidden)
	w.refused("all that is left, over the limit", w.do("POST", path, w.support, `{}`, key("s")...), 403, payment.CodeForbidden)
	w.refused("a reader", w.do("POST", path, w.reader, `{"amount": 1}`, key("s")...), 404, payment.CodeNotFound)
	w.refused("an auditor", w.do("POST", path, w.auditor, `{"amount": 1}`, key("s")...), 404, payment.CodeNotFound)
	w.refused("another's payment", w.do("POST", strings.Replace(path, id, w.ids.New(payment.PrefixPayment), 1), w.support, `{"amount": 1}`, key("s")...),
		404, payment.CodeNotFound)
	if w.rows() != n {
		t.Fatal("a refused refund left rows")
	}
	first := w.do("POST", path, w.support, `{"amount": 10000}`, key("s")...)
	if first.status != 202 || first.at(t, "amount") != "10000" {
		t.Fatalf("%d %s", first.status, first.body)
	}
	again := w.do("POST", path, w.support, `{"amount": 10000}`, key("s")...)
	if again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("replay: %d %s", again.status, again.body)
	}
	// The merchant's key of the same name is another one.
	if own := w.do("POST", path, w.merchant, `{"amount": 1}`, key("s")...); own.status != 202 || own.at(t, "amount") != "1" {
		t.Errorf("%d %s", own.status, own.body)
	}
	w.refused("support places nothing", w.post(w.support, good, key("p")...), 403, payment.CodeForbidden)
}

func TestExplainAuthorization(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/ops/authz/explain"
	for body, want := range map[string]string{
		`{"role":"merchant","action":"payments:create"}`:                               `"decision":"allow","scope":"own","policies":["merchant-writes-its-own"],"failed":[]`,
		`{"role":"support","action":"refunds:create","amount":10000,"currency":"EUR"}`: `"decision":"allow","scope":"all","policies":["support-refunds"],"failed":[]`,
		`{"role":"support","action":"refunds:create","amount":10001,"currency":"EUR"}`: `"decision":"deny","scope":null,"policies":["support-refund-limit"],"failed":[]`,
		`{"role":"operator","action":"payments:create"}`:                               `"decision":"deny","scope":null,"policies":["operator-moves-no-money"],"failed":[]`,
		`{"role":"support","action":"payments:cancel"}`:                                `"decision":"deny","scope":null,"policies":[],"failed":[]`,
	} {
		if a := w.do("POST", path, w.operator, body); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	for body, want := range map[string]string{
		`{}`: "/role missing,/action missing", `{"role":"root","action":"x"}`: "/role role_invalid,/action action_invalid",
		`{"role":"support","action":"payments:read","amount":1,"currency":"EUR"}`:   "/amount member_unknown",
		`{"role":"support","action":"refunds:create","amount":1}`:                   "/currency missing",
		`{"role":"support","action":"refunds:create","amount":-1,"currency":"EUR"}`: "/amount out_of_range",
	} {
		if errs := w.refused(body, w.do("POST", path, w.operator, body), 400, payment.CodeInvalid); strings.Join(errs, ",") != want {
			t.Errorf("%s: %v", body, errs)
		}
	}
	for _, key := range []string{w.merchant, w.reader, w.support, w.auditor} {
		w.refused("not an operator", w.do("POST", path, key, `{}`), 403, payment.CodeForbidden)
	}
}
