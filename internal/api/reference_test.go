package api

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
)

const bodyReference = "A-1001"

func TestAReferenceIsOneInEverySpelling(t *testing.T) {
	w := newWorld(t)
	const reference = "Größe é 7"
	spelled := func(s string) string {
		return strings.Replace(strings.Replace(good, bodyReference, s, 1), "cust-42", s, 1)
	}
	a := w.post(w.merchant, spelled(norm.NFD.String(reference)+"\u00a0"), key("first")...)
	if a.status != 202 || a.at(t, "order.reference") != reference || a.at(t, "customer.reference") != reference {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.project()
	for i, s := range []string{reference, " " + reference, norm.NFD.String(reference), reference + "\u3000", "\u2007" + reference, "\u202f" + reference} {
		w.refused(s, w.post(w.merchant, spelled(s), key("k-"+string(rune('a'+i)))...), 409, payment.CodeOrderInProgress)
		for _, filter := range []string{"order", "customer"} {
			a := w.do("GET", "/v1/payments?"+filter+"="+url.QueryEscape(s), w.merchant, "")
			if data, _ := a.at(t, "data").([]any); a.status != 200 || len(data) != 1 {
				t.Errorf("%s=%+q: %d %s", filter, s, a.status, a.body)
			}
		}
	}
	for _, s := range []string{"A\u200b", "\u00ad", "A\ufeff", "\u2800", "\u00a0"} {
		if got := w.refused(s, w.post(w.merchant, spelled(s), key("hidden")...), 400, payment.CodeInvalid); !slices.Equal(got, []string{"/customer/reference text_invalid", "/order/reference text_invalid"}) {
			t.Errorf("%+q: %v", s, got)
		}
		for _, filter := range []string{"order", "customer"} {
			if got := w.refused(s, w.do("GET", "/v1/payments?"+filter+"="+url.QueryEscape(s), w.merchant, ""), 400, payment.CodeInvalid); !slices.Equal(got, []string{"/query/" + filter + " text_invalid"}) {
				t.Errorf("%+q: %v", s, got)
			}
		}
	}
	// The same bytes replay, and another spelling under the same key is another request.
	if again := w.post(w.merchant, spelled(norm.NFD.String(reference)+"\u00a0"), key("first")...); again.status != 202 || again.at(t, "id") != a.at(t, "id") || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%d %s", again.status, again.body)
	}
	w.refused("respelled", w.post(w.merchant, spelled(reference), key("first")...), 422, payment.CodeKeyReused)
}

// A payment was accepted by a version that knew no business keys, and its client tries again.
func TestTheSameBytesReplayAlsoIfTheyAreRefusedToday(t *testing.T) {
	w := newWorld(t)
	a := w.post(w.merchant, good, key("old")...)
	hidden := strings.Replace(good, bodyReference, bodyReference+"\u200b", 1)
	fingerprint, err := idempotency.Fingerprint("POST", "/v1/payments", []byte(hidden))
	if err != nil {
		t.Fatal(err)
	}
	owner, err := postgres.Open(t.Context(), w.owner)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if _, err := owner.Exec(t.Context(), `UPDATE idempotency_keys SET fingerprint = $1`, fingerprint[:]); err != nil {
		t.Fatal(err)
	}
	if again := w.post(w.merchant, hidden, key("old")...); again.status != 202 || again.at(t, "id") != a.at(t, "id") || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%d %s", again.status, again.body)
	}
	w.refused("another key", w.post(w.merchant, hidden, key("new")...), 400, payment.CodeInvalid)
	w.refused("another body", w.post(w.merchant, strings.Replace(hidden, "cust-42", "cust-43", 1), key("old")...), 400, payment.CodeInvalid)
}

func TestAnSKUIsAnyName(t *testing.T) {
	w := newWorld(t)
	for _, sku := range []string{"LAT/78", "AB 12", "=1+1", "Größe é", "a%2Fb", "…", "?"} {
		for _, s := range []string{sku, " " + norm.NFD.String(sku) + "\u00a0"} {
			a := w.do("PUT", "/v1/stock", w.operator, encode(map[string]any{"merchant": w.merchantID, "sku": s, "on_hand": 5}))
			if data, _ := a.at(t, "data").([]any); a.status != 200 || len(data) != 1 || data[0].(map[string]any)["sku"] != sku {
				t.Errorf("%q: %d %s", s, a.status, a.body)
			}
		}
		body := strings.Replace(strings.Replace(good, "TSHIRT-M", norm.NFD.String(sku), 1), bodyReference, sku, 1)
		a := w.post(w.merchant, body, key(w.ids.New("k"))...)
		if a.status != 202 {
			t.Errorf("%q: %d %s", sku, a.status, a.body)
		}
	}
	twice := []any{map[string]any{"merchant": w.merchantID, "sku": "é", "on_hand": 1}, map[string]any{"merchant": w.merchantID, "sku": " e\u0301", "on_hand": 2}}
	if got := w.refused("two spellings", w.do("PUT", "/v1/stock", w.operator, encode(twice)), 400, payment.CodeInvalid); !slices.Equal(got, []string{"/1 item_duplicate"}) {
		t.Error(got)
	}
}
