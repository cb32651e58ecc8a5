package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"payments/internal/payment"
)

func signed(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	now := time.Now().Unix()
	fmt.Fprintf(mac, "%d.%s", now, body)
	return fmt.Sprintf("t=%d,v1=%s", now, hex.EncodeToString(mac.Sum(nil)))
}

func TestAProvidersNotificationMakesTheSagaDue(t *testing.T) {
	w := newWorld(t)
	placed := w.post(w.merchant, good, "Idempotency-Key", "k")
	waits := func() (waits bool) {
		t.Helper()
		if err := w.pool.QueryRow(t.Context(), `SELECT due_at > now() FROM sagas`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	}
	postpone := func() {
		t.Helper()
		if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET due_at = now() + interval '1 hour', updated_at = now() - interval '1 hour'`); err != nil {
			t.Fatal(err)
		}
	}
	notify := func(path, contentType, signature, body string) answer {
		t.Helper()
		return w.do("POST", path, "", body, "Content-Type", contentType, "Provider-Signature", signature)
	}
	const path, json = "/v1/provider/webhooks/simulator", "application/json; charset=utf-8"
	body := `{"id":"evt_1","type":"operation.succeeded","data":{"reference":"` + placed.at(t, "id").(string) + `"}}`
	postpone()

	w.refused("unknown provider", notify("/v1/provider/webhooks/acme", json, signed(providerSecret, body), body), 404, payment.CodeNotFound)
	w.refused("another secret", notify(path, json, signed("whsec_other", body), body), 400, payment.CodeSignatureInvalid)
	w.refused("no signature", notify(path, json, "", body), 400, payment.CodeSignatureInvalid)
	w.refused("no notification", notify(path, json, signed(providerSecret, "{}"), "{}"), 400, payment.CodeInvalid)
	w.refused("content type", notify(path, "text/plain", signed(providerSecret, body), body), 415, codeContentType)
	large := strings.Repeat(" ", maxBody) + body
	w.refused("too large", notify(path, json, signed(providerSecret, large), large), 413, codeBodyTooLarge)
	w.refused("parameter", notify(path+"?a=1", json, signed(providerSecret, body), body), 400, payment.CodeInvalid)
	if log := w.log.String(); !waits() || strings.Contains(log, `"level":"ERROR"`) {
		t.Fatalf("a refused notification had an effect, or is an error of ours: %s", log)
	}

	if a := notify(path, json, signed(providerSecret, body), body); a.status != 200 || a.body != `{"received":true}` {
		t.Fatalf("answered %d %s", a.status, a.body)
	}
	if waits() {
		t.Error("the saga is not due")
	}
	postpone()
	if a := notify(path, json, signed(providerSecret, body), body); a.status != 200 {
		t.Fatalf("the redelivery was answered %d %s", a.status, a.body)
	}
	if !waits() {
		t.Error("a redelivery had an effect")
	}
}
