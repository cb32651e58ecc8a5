package webhook

import (
	"strings"
	"testing"

	"payments/internal/idempotency"
	"payments/internal/payment"
)

const token = "T0k3n"

// The token in an endpoint's URL stands nowhere in the database, and deliveries carry it.
func TestTheTokenOfAURLIsNotStoredInTheClear(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	url := r.URL + "/" + token + "/hook?key=" + token
	e := w.endpoint(w.merchantID, url)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	d := w.dispatcher()
	w.turn(d)
	if got := r.all(); len(got) != 1 || w.log(e)[0].State != Succeeded {
		t.Fatalf("%d deliveries: %+v", len(got), w.log(e))
	}
	if got := w.get(e); got.URL != url {
		t.Errorf("the URL is read as %s", got.URL)
	}
	if got := value[string](w, `SELECT url FROM webhook_endpoints`); got != r.URL {
		t.Errorf("stored is %s, want %s", got, r.URL)
	}
	for _, table := range []string{"webhook_endpoints", "webhook_deliveries", "webhook_attempts", "webhook_secrets", "idempotency_keys"} {
		if all := value[string](w, `SELECT coalesce(string_agg(x::text, ' '), '') FROM `+table+` x`); strings.Contains(all, token) ||
			strings.Contains(all, strings.ToLower(token)) {
			t.Errorf("%s has the token: %s", table, all)
		}
	}
	// A ciphertext that is moved to another endpoint does not open there.
	other := w.endpoint(w.merchantID, r.URL+"/other")
	w.exec(`UPDATE webhook_endpoints e SET url_ciphertext = o.url_ciphertext FROM webhook_endpoints o WHERE e.id = $1 AND o.id = $2`, other.ID, e.ID)
	if got, err := w.store.one(w.pool.Query(t.Context(), selectEndpoint+`id = $1`, other.ID)); err == nil {
		t.Errorf("opened as %s", got.URL)
	}
	if err := w.store.Delete(t.Context(), w.merchantID, e.ID); err != nil {
		t.Fatal(err)
	}
	if n := value[int](w, `SELECT count(*) FROM webhook_endpoints WHERE deleted_at IS NOT NULL AND url_ciphertext IS NULL`); n != 1 {
		t.Error("the URL of a deleted endpoint is kept")
	}
}

// What a process of the version before has written is delivered to and shown as it is.
func TestAURLFromBeforeIsReadAsItIs(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL+"/new")
	w.exec(`UPDATE webhook_endpoints SET url = $1, url_ciphertext = NULL`, r.URL+"/old")
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(w.dispatcher())
	if got := w.get(e); got.URL != r.URL+"/old" || len(r.all()) != 1 {
		t.Errorf("%s, %d deliveries", got.URL, len(r.all()))
	}
}

func TestShownURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://a.example": "https://a.example", "https://a.example/": "https://a.example", "https://a.example:8443/x?y": "https://a.example:8443",
		"https://a.example?token=a/b": "https://a.example", "http://[2001:db8::1]:8080/a": "http://[2001:db8::1]:8080",
	} {
		if got := ShownURL(url); got != want {
			t.Errorf("%s is shown as %s, want %s", url, got, want)
		}
	}
}

// Making and deleting in turn ends at a bound, and goes on once the deleted ones are reaped.
func TestDeletedEndpointsCount(t *testing.T) {
	w := newWorld(t)
	for n := range MaxKeptEndpoints {
		e := w.endpoint(w.merchantID, "https://example.com/hook")
		if err := w.store.Delete(t.Context(), w.merchantID, e.ID); err != nil {
			t.Fatal(n, err)
		}
	}
	another := func() error {
		draft, err := NewDraft(Guard{}, "https://example.com/hook", []string{AllEvents})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = w.store.Create(t.Context(), w.request(w.merchantID), draft, func(k Keyed) (idempotency.Response, error) {
			return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
		})
		return err
	}
	if err := another(); code(err) != payment.CodeWebhookLimit {
		t.Errorf("one more than is kept: %v", err)
	}
	w.exec(`UPDATE webhook_endpoints SET deleted_at = deleted_at - interval '31 days'`)
	if _, err := Reap(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	if err := another(); err != nil {
		t.Errorf("after the reaping: %v", err)
	}
}
