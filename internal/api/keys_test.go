package api

import (
	"slices"
	"strings"
	"testing"

	"payments/internal/payment"
)

func TestKeysAreMadeRotatedAndRevoked(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/ops/keys"
	body := `{"mode":"test","role":"merchant_reader","merchant":"` + w.merchantID + `","holder":"shop's cron","networks":["127.0.0.0/8","::1"]}`
	w.refused("no key", w.do("POST", path, w.operator, body), 400, payment.CodeKeyMissing)
	first := w.do("POST", path, w.operator, body, key("c-1")...)
	if first.status != 201 || first.at(t, "object") != "api_key" || first.at(t, "holder") != "shop's cron" || first.at(t, "networks.1") != "::1/128" {
		t.Fatalf("%d %s", first.status, first.body)
	}
	id := first.at(t, "id").(string)
	secret := first.at(t, "secret_part").(string) + w.approved(id)
	if a := w.do("GET", "/v1/payments", secret, ""); a.status != 200 {
		t.Errorf("the new key: %d %s", a.status, a.body)
	}
	w.refused("a reader writes", w.post(secret, good, key("p")...), 403, payment.CodeForbidden)

	// The secret is shown once: a replay is the same key without it.
	again := w.do("POST", path, w.operator, body, key("c-1")...)
	if again.status != 201 || again.header.Get("Idempotent-Replayed") != "true" || again.at(t, "id") != id || again.at(t, "secret") != nil || again.at(t, "secret_part") != nil {
		t.Errorf("replay: %d %s", again.status, again.body)
	}
	w.refused("reused", w.do("POST", path, w.operator, strings.Replace(body, "_reader", "", 1), key("c-1")...), 422, payment.CodeKeyReused)

	rotated := w.do("POST", path+"/"+id+"/rotate", w.operator, `{"mode":"test","overlap_seconds":3600}`, key("r-1")...)
	if rotated.status != 201 || rotated.at(t, "role") != "merchant_reader" || rotated.at(t, "holder") != "shop's cron" || rotated.at(t, "networks.0") != "127.0.0.0/8" {
		t.Fatalf("%d %s", rotated.status, rotated.body)
	}
	next := rotated.at(t, "secret_part").(string) + w.approved(rotated.at(t, "id").(string))
	for _, k := range []string{secret, next} {
		if a := w.do("GET", "/v1/payments", k, ""); a.status != 200 {
			t.Errorf("in the overlap: %d %s", a.status, a.body)
		}
	}
	w.refused("rotated twice", w.do("POST", path+"/"+id+"/rotate", w.operator, `{"mode":"test"}`, key("r-2")...), 409, payment.CodeAPIKeyInactive)
	for range 2 {
		if a := w.do("DELETE", path+"/"+id, w.operator, ""); a.status != 200 || a.at(t, "revoked_at") == nil || a.at(t, "replaced_by") != rotated.at(t, "id") {
			t.Errorf("revoke: %d %s", a.status, a.body)
		}
	}
	w.refused("revoked", w.do("GET", "/v1/payments", secret, ""), 401, payment.CodeUnauthenticated)
	list := w.do("GET", path+"?merchant="+w.merchantID+"&limit=1", w.auditor, "")
	if list.status != 200 || list.at(t, "data.0.id") != rotated.at(t, "id") || list.at(t, "data.0.holder") != "shop's cron" || list.at(t, "has_more") != true || strings.Contains(list.body, "sk_") {
		t.Errorf("list: %d %s", list.status, list.body)
	}
	if a := w.do("GET", path+"?merchant="+w.merchantID+"&limit=1&cursor="+list.at(t, "next_cursor").(string), w.operator, ""); a.at(t, "data.0.id") != id {
		t.Errorf("next page: %s", a.body)
	}
	// No answer that is kept has a secret in it, and no log.
	if log := w.log.String(); strings.Contains(log, "sk_test_") {
		t.Error("a key is in the log")
	}
	for _, k := range []string{w.merchant, w.reader, w.support, w.auditor} {
		w.refused("not an operator", w.do("POST", path, k, body, key("x")...), 403, payment.CodeForbidden)
		w.refused("not an operator", w.do("DELETE", path+"/"+id, k, ""), 404, payment.CodeNotFound)
		w.refused("not an operator", w.do("POST", path+"/"+id+"/approve", k, ""), 404, payment.CodeNotFound)
		w.refused("not the holder", w.do("POST", path+"/"+id+"/rotate", k, `{"mode":"test"}`, key("y")...), 404, payment.CodeNotFound)
	}
}

func TestKeysThatCannotBe(t *testing.T) {
	w := newWorld(t)
	for body, want := range map[string]string{
		`{}`:                                "/mode missing,/role missing",
		`{"mode":"prod","role":"root"}`:     "/mode mode_invalid,/role role_invalid",
		`{"mode":"test","role":"merchant"}`: "/merchant missing",
		`{"mode":"test","role":"merchant","merchant":"mer_1"}`:                                 "/merchant id_invalid",
		`{"mode":"test","role":"operator","holder":"ada","merchant":"` + w.merchantID + `"}`:   "/merchant member_unknown",
		`{"mode":"test","role":"operator","holder":"ada","networks":["10.0.0.1/8","x"]}`:       "/networks/0 network_invalid,/networks/1 network_invalid",
		`{"mode":"test","role":"operator","holder":"ada","expires_at":"2020-01-01T00:00:00Z"}`: "/expires_at time_invalid",
		`{"mode":"test","role":"operator"}`:                                                    "/holder missing",
		`{"mode":"test","role":"support"}`:                                                     "/holder missing",
		`{"mode":"test","role":"auditor","holder":" ada"}`:                                     "/holder text_invalid",
		`{"mode":"test","role":"merchant","merchant":"` + w.merchantID + `","holder":""}`:      "/holder text_invalid",
	} {
		if errs := w.refused(body, w.do("POST", "/v1/ops/keys", w.operator, body, key("k")...), 400, payment.CodeInvalid); !slices.Equal(errs, strings.Split(want, ",")) {
			t.Errorf("%s: %v", body, errs)
		}
	}
	nobody := w.ids.New(payment.PrefixMerchant)
	w.refused("no such merchant", w.do("POST", "/v1/ops/keys", w.operator, `{"mode":"test","role":"merchant","merchant":"`+nobody+`"}`, key("k")...),
		404, payment.CodeNotFound)
}
