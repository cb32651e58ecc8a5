package api

import (
	"bytes"
	"strings"
	"testing"

	"payments/internal/idempotency"
	"payments/internal/payment"
)

// A stored answer opens for its merchant and key alone: whoever can write to the database
// cannot let one request be answered by another's.
func TestAKeptAnswerIsBoundToItsMerchantAndKey(t *testing.T) {
	w := newWorld(t)
	first, second := good, strings.Replace(good, "A-1001", "A-2", 1)
	made := w.post(w.merchant, first, key("first")...)
	if a := w.post(w.merchant, second, key("second")...); made.status != 202 || a.status != 202 {
		t.Fatalf("%s %s", made.body, a.body)
	}
	// The whole answer of another request of the merchant, with its resource.
	if err := w.asOwner(`UPDATE idempotency_keys k SET body = o.body, resource_id = o.resource_id, header = o.header
		FROM idempotency_keys o WHERE k.key = 'second' AND o.key = 'first'`); err != nil {
		t.Fatal(err)
	}
	w.refused("another key's answer", w.post(w.merchant, second, key("second")...), 500, payment.CodeInternal)
	if a := w.post(w.merchant, first, key("first")...); a.status != 202 || a.body != made.body {
		t.Errorf("the answer of its own: %d %s", a.status, a.body)
	}
	// Another merchant's.
	if err := w.asOwner(`UPDATE idempotency_keys SET merchant_id = '` + w.otherID + `' WHERE key = 'first'`); err != nil {
		t.Fatal(err)
	}
	w.refused("another merchant's answer", w.post(w.other, first, key("first")...), 500, payment.CodeInternal)
	// One from before answers were bound to their key.
	if err := w.asOwner(`DELETE FROM idempotency_keys WHERE key = 'second';
		UPDATE idempotency_keys SET merchant_id = '` + w.merchantID + `' WHERE key = 'first'`); err != nil {
		t.Fatal(err)
	}
	w.rekeep("first", made.body, func(map[string]string) {})
	if a := w.post(w.merchant, first, key("first")...); a.status != 202 || a.body != made.body {
		t.Errorf("from before: %d %s", a.status, a.body)
	}
	if bytes.Equal(idempotency.AnswerData(idempotency.Request{MerchantID: "a", Key: "b"}, "c"), idempotency.AnswerData(idempotency.Request{MerchantID: "ab"}, "c")) {
		t.Error("two rows have the same data")
	}
}
