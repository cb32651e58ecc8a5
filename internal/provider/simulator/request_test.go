package simulator

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestBadRequestsAreRefusedAndLeaveNothing(t *testing.T) {
	b := newBank(t)
	good := authorize("k", "pm_card_visa")
	long := strings.Repeat("x", 256)
	for name, tc := range map[string]struct {
		method, path, key, contentType, body string
		status                               int
		code, pointer                        string
	}{
		"no key":            {body: good.body, status: 400, code: "idempotency_key_missing"},
		"long key":          {key: long, body: good.body, status: 400, code: "idempotency_key_invalid"},
		"key with space":    {key: "a b", body: good.body, status: 400, code: "idempotency_key_invalid"},
		"content type":      {key: "k", contentType: "text/plain", body: good.body, status: 415, code: "unsupported_media_type"},
		"charset":           {key: "k", contentType: "application/json; charset=latin1", body: good.body, status: 415, code: "unsupported_media_type"},
		"unknown member":    {key: "k", body: `{"reference":"p","amounts":1}`, status: 400, code: "json_unknown_member", pointer: "/amounts"},
		"wrong case":        {key: "k", body: `{"Reference":"p"}`, status: 400, code: "json_unknown_member", pointer: "/Reference"},
		"duplicate member":  {key: "k", body: `{"amount":1,"amount":2}`, status: 400, code: "json_duplicate_member", pointer: "/amount"},
		"trailing bytes":    {key: "k", body: good.body + " {}", status: 400, code: "json_invalid"},
		"truncated":         {key: "k", body: good.body[:20], status: 400, code: "json_invalid"},
		"empty":             {key: "k", body: " ", status: 400, code: "json_invalid"},
		"null":              {key: "k", body: "null", status: 400, code: "json_invalid"},
		"array":             {key: "k", body: "[]", status: 400, code: "json_invalid"},
		"too large":         {key: "k", body: strings.Repeat(" ", maxBody) + good.body, status: 413, code: "body_too_large"},
		"no reference":      {key: "k", body: `{"amount":1,"currency":"EUR","payment_method":"pm"}`, status: 422, code: "invalid_member", pointer: "/reference"},
		"NUL in reference":  {key: "k", body: `{"reference":"p\u0000","amount":1,"currency":"EUR","payment_method":"pm"}`, status: 422, code: "invalid_member", pointer: "/reference"},
		"amount 0":          {key: "k", body: `{"reference":"p","amount":0,"currency":"EUR","payment_method":"pm"}`, status: 422, code: "invalid_member", pointer: "/amount"},
		"amount 2^63":       {key: "k", body: `{"reference":"p","amount":9223372036854775808,"currency":"EUR"}`, status: 400, code: "json_wrong_type", pointer: "/amount"},
		"amount 1.0":        {key: "k", body: `{"reference":"p","amount":1.0,"currency":"EUR"}`, status: 400, code: "json_wrong_type", pointer: "/amount"},
		"amount text":       {key: "k", body: `{"reference":"p","amount":"1","currency":"EUR"}`, status: 400, code: "json_wrong_type", pointer: "/amount"},
		"currency":          {key: "k", body: `{"reference":"p","amount":1,"currency":"eur","payment_method":"pm"}`, status: 422, code: "invalid_member", pointer: "/currency"},
		"no method":         {key: "k", body: `{"reference":"p","amount":1,"currency":"EUR"}`, status: 422, code: "invalid_member", pointer: "/payment_method"},
		"capture of what":   {path: "/v1/captures", key: "k", body: `{"reference":"p","amount":1,"currency":"EUR"}`, status: 422, code: "invalid_member", pointer: "/authorization"},
		"void with amount":  {path: "/v1/voids", key: "k", body: `{"reference":"p","authorization":"op_1","amount":1}`, status: 400, code: "json_unknown_member", pointer: "/amount"},
		"refund of what":    {path: "/v1/refunds", key: "k", body: `{"reference":"p","amount":1,"currency":"EUR"}`, status: 422, code: "invalid_member", pointer: "/capture"},
		"fault kind":        {path: "/v1/faults", body: `{"kind":"flood"}`, status: 422, code: "invalid_member", pointer: "/kind"},
		"fault of webhooks": {path: "/v1/faults", body: `{"kind":"error","operation":"webhook"}`, status: 422, code: "invalid_member", pointer: "/kind"},
		"webhook kind":      {path: "/v1/faults", body: `{"kind":"duplicate"}`, status: 422, code: "invalid_member", pointer: "/kind"},
		"fault operation":   {path: "/v1/faults", body: `{"kind":"error","operation":"all"}`, status: 422, code: "invalid_member", pointer: "/operation"},
		"fault rate 0":      {path: "/v1/faults", body: `{"kind":"error","rate":0}`, status: 422, code: "invalid_member", pointer: "/rate"},
		"fault rate 1.1":    {path: "/v1/faults", body: `{"kind":"error","rate":1.1}`, status: 422, code: "invalid_member", pointer: "/rate"},
		"fault latency":     {path: "/v1/faults", body: `{"kind":"slow","latency_ms":-1}`, status: 422, code: "invalid_member", pointer: "/latency_ms"},
		"fault seconds":     {path: "/v1/faults", body: `{"kind":"error","seconds":-1}`, status: 422, code: "invalid_member", pointer: "/seconds"},
		"fault member":      {path: "/v1/faults", body: `{"kind":"error","second":1}`, status: 400, code: "json_unknown_member", pointer: "/second"},
		"other path":        {path: "/v1/nothing", status: 404, code: "not_found"},
		"other method":      {method: "GET", path: "/v1/voids", status: 405, code: "method_not_allowed"},
		"unknown parameter": {method: "GET", path: "/v1/operations?ref=pay_1", status: 400, code: "query_invalid"},
		"parameter twice":   {method: "GET", path: "/v1/operations?reference=a&reference=b", status: 400, code: "query_invalid"},
		"empty parameter":   {method: "GET", path: "/v1/operations?reference=", status: 400, code: "query_invalid"},
		"unknown type":      {method: "GET", path: "/v1/operations?type=hold", status: 400, code: "query_invalid"},
		"broken query":      {method: "GET", path: "/v1/operations?reference=%zz", status: 400, code: "query_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, contentType := orElse(tc.method, "POST"), orElse(tc.path, good.path), orElse(tc.contentType, "application/json")
			req, err := http.NewRequestWithContext(t.Context(), method, b.srv.URL+path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", contentType)
			if tc.key != "" {
				req.Header.Set("Idempotency-Key", tc.key)
			}
			resp, err := b.srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var p problem
			if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status || p.Code != tc.code || p.Pointer != tc.pointer || p.Object != "error" || p.Message == "" {
				t.Errorf("answered %d %+v, want %d %s %s", resp.StatusCode, p, tc.status, tc.code, tc.pointer)
			}
		})
	}
	if all := b.list(nil); len(all) != 0 {
		t.Errorf("ledger has %v", all)
	}
	if r := b.do(context.Background(), "GET", "/healthz", "", ""); r.status != http.StatusOK {
		t.Errorf("healthz answered %d", r.status)
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
