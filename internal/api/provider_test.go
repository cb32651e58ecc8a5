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
	large := strings.Repeat(" ", maxNotification) + body
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

// What a provider signs may hold bytes that no column can: that is its fault, or no matter, and
// never an error of ours.
func TestASignedNotificationWithBytesThatCannotBeKept(t *testing.T) {
	w := newWorld(t)
	placed := w.post(w.merchant, good, "Idempotency-Key", "k")
	id := placed.at(t, "id").(string)
	notify := func(body string) answer {
		t.Helper()
		return w.do("POST", "/v1/provider/webhooks/simulator", "", body, "Content-Type", "application/json", "Provider-Signature", signed(providerSecret, body))
	}
	kept := func() (n int) {
		t.Helper()
		if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM inbox_messages`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const whole = `{"id":"%s","type":"%s","data":{"id":"%s","reference":"%s","idempotency_key":"%s"}}`
	for name, evil := range map[string]string{
		"NUL": `\u0000`, "NUL at the end": `evt_1\u0000`, "NUL inside": `ev\u0000t`, "a line feed": `evt_\n`,
		"a control character": `\u009f`, "too long": strings.Repeat("x", 300), "nothing": ``,
	} {
		refusal := w.refused("an id with "+name, notify(fmt.Sprintf(whole, evil, "operation.succeeded", "op_1", id, "k")), 400, payment.CodeInvalid)
		if len(refusal) > 1 {
			t.Errorf("%s: %v", name, refusal)
		}
	}
	for name, raw := range map[string]string{"a raw NUL": "\x00", "bytes that are no UTF-8": "\xff", "half a surrogate pair": `\ud800`} {
		body := fmt.Sprintf(whole, "evt_"+raw, "operation.succeeded", "op_1", id, "k")
		if a := notify(body); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if n := kept(); n != 0 {
		t.Errorf("%d refused notifications are kept", n)
	}
	// In a member that is not its id the text is left out, and the rest taken.
	for n, body := range []string{
		fmt.Sprintf(whole, "evt_1", `operation\u0000`, "op_1", id, "k"), fmt.Sprintf(whole, "evt_2", "operation.succeeded", `op_\u0000`, id, "k"),
		fmt.Sprintf(whole, "evt_3", "operation.succeeded", "op_1", `pay_\u0000`, "k"), fmt.Sprintf(whole, "evt_4", "operation.succeeded", "op_1", id, `\u0000`),
		strings.Replace(fmt.Sprintf(whole, "evt_5", "operation.succeeded", "op_1", id, "k"), `{"id"`, `{"more\u0000":"\u0000","id"`, 1),
	} {
		if a := notify(body); a.status != 200 || kept() != n+1 {
			t.Errorf("%s: %d %s, %d kept", body, a.status, a.body, kept())
		}
	}
	if log := w.log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("an error of ours: %s", log)
	}
}
