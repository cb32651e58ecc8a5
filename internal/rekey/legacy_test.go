package rekey

import (
	"strings"
	"testing"

	"payments/internal/idempotency"
	"payments/internal/webhook"
)

// URLs of endpoints from before they were sealed, and answers from before they were bound to
// their key.
func TestWhatIsFromBeforeIsSealedAndBound(t *testing.T) {
	w := newWorld(t)
	_, cipher := w.keys()
	id := w.place()
	w.project()
	if _, _, err := webhook.NewStore(w.service, ids(), cipher, webhook.Guard{}).Create(t.Context(), idempotency.Request{MerchantID: w.merchant, Key: "hook"},
		w.endpoint(), func(k webhook.Keyed) (idempotency.Response, error) {
			return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
		}); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE webhook_endpoints SET url = $1, url_ciphertext = NULL`, hook)
	old, err := cipher.Encrypt([]byte("the answer"), idempotency.BodyData(id))
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE idempotency_keys SET body = $1 WHERE resource_id = $2`, old, id)
	want := map[string]Count{"webhook_endpoints.url": {Values: 1, Older: 1}, "idempotency_keys.body": {Values: 1, Older: 1}}
	w.expect("before", w.run(true), want)
	for column := range want {
		want[column] = Count{Values: 1, Renewed: 1}
	}
	w.expect("the run", w.run(false), want)
	w.expect("after it", w.run(true), nil)
	w.readable()
	var url string
	if err := w.owner.QueryRow(t.Context(), `SELECT url FROM webhook_endpoints`).Scan(&url); err != nil || strings.Contains(url, "t0k3n") {
		t.Errorf("the URL stands as %s (%v)", url, err)
	}
}
