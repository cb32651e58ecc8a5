package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"payments/internal/payment"
)

// with is the good body after one replacement, which has to happen.
func with(t *testing.T, old, replacement string) string {
	t.Helper()
	if !strings.Contains(good, old) {
		t.Fatalf("%s is not in the good body", old)
	}
	return strings.Replace(good, old, replacement, 1)
}

func TestBadInputLeavesNoRow(t *testing.T) {
	w := newWorld(t)
	const line = `{"sku": "TSHIRT-M", "quantity": 2, "unit_amount": 2499}`
	for name, test := range map[string]struct {
		body   string
		code   payment.Code
		errors string // "pointer code", comma-separated
	}{
		"missing amount":        {with(t, `"amount": 4998, `, ""), "validation_failed", "/amount missing"},
		"null amount":           {with(t, `4998`, "null"), "validation_failed", "/amount null_invalid"},
		"missing customer":      {with(t, `"customer": {"reference": "cust-42", "email": "ada@example.com"},`, ""), "validation_failed", "/customer missing"},
		"missing reference":     {with(t, `"reference": "cust-42", `, ""), "validation_failed", "/customer/reference missing"},
		"missing order":         {`{"amount":1,"currency":"EUR","payment_method":"pm_x","customer":{"reference":"c"}}`, "validation_failed", "/order missing"},
		"missing sku":           {with(t, `"sku": "TSHIRT-M", `, ""), "validation_failed", "/order/lines/0/sku missing"},
		"null line":             {with(t, line, "null"), "validation_failed", "/order/lines/0 null_invalid"},
		"empty object":          {`{}`, "validation_failed", "/amount missing,/currency missing,/payment_method missing,/customer missing,/order missing"},
		"null":                  {`null`, "validation_failed", " type_invalid"},
		"array":                 {`[]`, "validation_failed", " type_invalid"},
		"missing and wrong":     {strings.Replace(with(t, `"amount": 4998, `, ""), "EUR", "eur", 1), "validation_failed", "/amount missing,/currency currency_invalid"},
		"unknown member":        {with(t, `{"amount"`, `{"surprise": 1, "amount"`), "validation_failed", "/surprise member_unknown"},
		"unknown in a line":     {with(t, `"sku"`, `"color": "s3cret", "sku"`), "validation_failed", "/order/lines/0/color member_unknown"},
		"member in capitals":    {with(t, `"currency"`, `"Currency"`), "validation_failed", "/Currency member_unknown"},
		"a card for a name":     {with(t, `{"amount"`, `{"4111111111111111": 1, "amount"`), "validation_failed", " member_unknown"},
		"a token for a name":    {with(t, `{"amount"`, `{"card4111111111111111": 1, "amount"`), "validation_failed", " member_unknown"},
		"duplicate member":      {with(t, `"amount": 4998`, `"amount": 4998, "amount": 4998`), "validation_failed", "/amount member_duplicate"},
		"duplicate in a line":   {with(t, `"quantity": 2`, `"quantity": 2, "quantity": 3`), "validation_failed", "/order/lines/0/quantity member_duplicate"},
		"wrong sum":             {with(t, `4998`, "4999"), "validation_failed", "/amount amount_mismatch"},
		"currency XXX":          {with(t, `EUR`, "XXX"), "validation_failed", "/currency currency_invalid"},
		"quantity 0":            {with(t, `"quantity": 2`, `"quantity": 0`), "validation_failed", "/order/lines/0/quantity out_of_range"},
		"2^63":                  {with(t, `4998`, "9223372036854775808"), "validation_failed", "/amount integer_invalid"},
		"2^63 in a line":        {with(t, `2499`, "9223372036854775808"), "validation_failed", "/order/lines/0/unit_amount integer_invalid"},
		"2^63-1":                {with(t, `4998`, "9223372036854775807"), "validation_failed", "/amount out_of_range"},
		"overflowing product":   {strings.Replace(with(t, `2499`, "9223372036854775807"), `"quantity": 2`, `"quantity": 1000000`, 1), "validation_failed", "/order/lines/0/unit_amount out_of_range"},
		"fraction":              {with(t, `4998`, "49.98"), "validation_failed", "/amount integer_invalid"},
		"exponent":              {with(t, `4998`, "1e3"), "validation_failed", "/amount integer_invalid"},
		"negative":              {with(t, `4998`, "-1"), "validation_failed", "/amount out_of_range"},
		"amount as text":        {with(t, `4998`, `"4998"`), "validation_failed", "/amount integer_invalid"},
		"currency as number":    {with(t, `"EUR"`, `978`), "validation_failed", "/currency type_invalid"},
		"lines as object":       {with(t, "["+line+"]", line), "validation_failed", "/order/lines type_invalid"},
		"order as text":         {strings.Replace(good, good[strings.Index(good, `{"reference": "A-1001"`):len(good)-1], `"s3cret"`, 1), "validation_failed", "/order type_invalid"},
		"no lines":              {with(t, line, ""), "validation_failed", "/order/lines out_of_range"},
		"101 lines":             {with(t, line, strings.Repeat(line+",", 100)+line), "validation_failed", "/order/lines out_of_range"},
		"10000 empty lines":     {with(t, line, strings.Repeat("{},", 10000)+"{}"), "validation_failed", ""},
		"escaped NUL":           {with(t, `cust-42`, `cust\u0000s3cret`), "validation_failed", "/customer/reference text_invalid"},
		"raw NUL":               {with(t, `cust-42`, "cust\x00s3cret"), "json_invalid", "/customer/reference json_invalid"},
		"escaped NUL in sku":    {with(t, `TSHIRT-M`, `T\u0000`), "validation_failed", "/order/lines/0/sku sku_invalid"},
		"invalid UTF-8":         {with(t, `cust-42`, "cust\xff"), "json_invalid", "/customer/reference json_invalid"},
		"half a surrogate":      {with(t, `cust-42`, `\ud800`), "json_invalid", "/customer/reference json_invalid"},
		"email":                 {with(t, `ada@example.com`, "s3cret"), "validation_failed", "/customer/email email_invalid"},
		"empty email":           {with(t, `ada@example.com`, ""), "validation_failed", "/customer/email email_invalid"},
		"card number":           {with(t, `pm_card_visa`, "4111111111111111"), "validation_failed", "/payment_method payment_method_invalid"},
		"no capture method":     {with(t, `{"amount"`, `{"capture_method": "fax", "amount"`), "validation_failed", "/capture_method capture_method_invalid"},
		"truncated":             {good[:len(good)-1], "json_invalid", " json_invalid"},
		"truncated in a number": {`{"amount": 49`, "json_invalid", " json_invalid"},
		"trailing bytes":        {good + " x", "json_invalid", " json_invalid"},
		"a second document":     {good + good, "json_invalid", " json_invalid"},
		"trailing comma":        {with(t, `2499}]}}`, `2499}]},}`), "json_invalid", " json_invalid"},
		"byte order mark":       {"\ufeff" + good, "json_invalid", " json_invalid"},
		"not JSON":              {"amount=4998&s3cret", "json_invalid", " json_invalid"},
		"white space":           {"  ", "json_invalid", " json_invalid"},
	} {
		a := w.post(w.merchant, test.body, key("k-"+name[:1])...)
		got := strings.Join(w.refused(name, a, 400, test.code), ",")
		if test.errors == "" {
			if len(a.body) > 20_000 {
				t.Errorf("%s: an answer of %d bytes", name, len(a.body))
			}
		} else if got != test.errors {
			t.Errorf("%s: got %q, want %q", name, got, test.errors)
		}
		if strings.Contains(a.body, "s3cret") || strings.Contains(a.body, "4111") {
			t.Errorf("%s: the answer repeats what was sent: %s", name, a.body)
		}
	}
	w.refused("empty body", w.post(w.merchant, "", append(key("k"), "Content-Type", "application/json")...), 400, codeJSONInvalid)
	w.refused("65 KiB", w.post(w.merchant, with(t, "cust-42", strings.Repeat("x", 65<<10)), key("k")...), 413, codeBodyTooLarge)
	w.refused("65 KiB of space", w.post(w.merchant, good+strings.Repeat(" ", 65<<10), key("k")...), 413, codeBodyTooLarge)
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "application/jsonp", "/"} {
		a := w.post(w.merchant, good, append(key("k"), "Content-Type", contentType)...)
		w.refused("content type "+contentType, a, 415, codeContentType)
	}
	w.refused("compressed", w.post(w.merchant, good, append(key("k"), "Content-Encoding", "gzip")...), 415, codeContentType)
	if n := w.rows(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if a := w.post(w.merchant, good, append(key("k"), "Content-Type", "Application/JSON; charset=UTF-8")...); a.status != 202 {
		t.Errorf("a refused request used its key up: %d %s", a.status, a.body)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	w := newWorld(t)
	broken := w.merchant[:len(w.merchant)-1] + "!"
	for _, credentials := range []string{"", "Bearer", "Bearer " + broken, "Basic " + w.merchant, w.merchant, "Bearer " + w.merchant + " x"} {
		a := w.post("", "{", append(key("k"), "Authorization", credentials)...)
		w.refused(fmt.Sprintf("%q", credentials), a, 401, payment.CodeUnauthenticated)
		if a.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%q: %v", credentials, a.header)
		}
	}
	if a := w.do("GET", "/v1/payments", "", "", "Authorization", "bEARER  "+w.merchant); a.status != 200 {
		t.Errorf("the scheme in any case: %d %s", a.status, a.body)
	}
	// Before the body is looked at, and before the key of the request.
	w.refused("operator pays", w.post(w.operator, "{"), 403, payment.CodeForbidden)
	w.refused("merchant sets stock", w.do("PUT", "/v1/stock?x=1", w.merchant, "{"), 403, payment.CodeForbidden)
	w.refused("merchant reads another's stock", w.do("GET", "/v1/stock?merchant="+w.otherID, w.merchant, ""), 403, payment.CodeForbidden)

	for _, path := range []string{"/v1", "/v1/payments/", "/v2/payments", "/metrics", "/v1/payments/a/b/c"} {
		w.refused(path, w.do("GET", path, "", ""), 404, payment.CodeNotFound)
	}
	for _, test := range []struct{ method, path, allow string }{
		{"DELETE", "/v1/payments", "GET, HEAD, POST"}, {"POST", "/v1/payments/pay_1", "GET, HEAD"}, {"PATCH", "/v1/stock", "GET, HEAD, PUT"},
		{"BREW", "/v1/stock", "GET, HEAD, PUT"},
	} {
		a := w.do(test.method, test.path, "", "")
		w.refused(test.method, a, 405, codeMethodNotAllowed)
		if got := a.header.Values("Allow"); !slices.Equal(got, []string{test.allow}) {
			t.Errorf("%s %s: Allow %v", test.method, test.path, got)
		}
	}
}
