package test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"payments/internal/devstack/devtest"
)

var keysets = []string{"PAYMENTS_PEPPER_KEYSET", "PAYMENTS_ENCRYPTION_KEYSET"}

// Both keysets and the webhooks' secrets of both directions are rotated as
// docs/rotation.md says, with three processes under load, which are restarted one by
// one at each step. No request is refused, and nothing that the old secrets made is of
// any use afterwards.
func TestSecretsRotateUnderLoad(t *testing.T) {
	t.Parallel()
	urls := devtest.Database(t)
	w := newWorld(t, parts{database: urls})
	w.vars["PAYMENTS_MIGRATE_DATABASE_URL"], w.vars["PAYMENTS_WEBHOOKS_ALLOW_PRIVATE"] = urls.OwnerURL, "true"
	oldKeys, oldInbound := maps.Clone(w.vars), w.vars["PAYMENTS_PROVIDER_WEBHOOK_SECRETS"]
	newInbound := "whsec_" + strings.Repeat("n3w", 12)
	all := []*service{w.serve(nil), w.serve(nil), w.serve(nil)}
	hook := w.hook(all[0])
	l := w.load(random(t), all...)
	// deploy restarts one process after the other, each with the variables of now.
	deploy := func() {
		t.Helper()
		for _, s := range all {
			if code := s.end(syscall.SIGTERM); code != 0 {
				t.Errorf("%s ended with exit code %d", s.name, code)
			}
			maps.Copy(s.vars, w.vars)
			s.vars["PAYMENTS_ADDR"], s.vars["PAYMENTS_ADMIN_ADDR"] = strings.TrimPrefix(s.url, "http://"), strings.TrimPrefix(s.admin, "http://")
			s.start()
			s.awaitReady()
			n := l.count()
			await(t, settleWithin, func() string { return l.fewer(n + 3) })
		}
	}
	await(t, settleWithin, func() string { return l.fewer(10) })
	first := l.first()
	var email []byte
	if err := w.scan(`SELECT o.customer_email_ciphertext FROM orders o JOIN payments p ON p.order_id = o.id WHERE p.id = $1`, []any{first.id}, &email); err != nil {
		t.Fatal(err)
	}

	w.rotate("add")
	w.vars["PAYMENTS_PROVIDER_WEBHOOK_SECRETS"] = oldInbound + "," + newInbound
	deploy()
	w.rotate("promote")
	w.vars["PAYMENTS_SIMULATOR_WEBHOOK_SECRET"] = newInbound
	if code := w.simulator.end(syscall.SIGTERM); code != 0 {
		t.Errorf("the simulator ended with exit code %d", code)
	}
	w.simulate()
	hook.rotate(all[0], 3600)
	deploy()
	w.reencrypted(all[0])
	w.rotate("drop")
	w.vars["PAYMENTS_PROVIDER_WEBHOOK_SECRETS"] = newInbound
	hook.rotate(all[0], 0)
	deploy()
	hook.mu.Lock()
	hook.ended = true
	hook.mu.Unlock()
	n := l.count()
	await(t, settleWithin, func() string { return l.fewer(n + 10) })

	l.verify()
	hook.verify()
	// The first payment is read, replayed and found by its payment method.
	if a, err := w.post(all[1], first.key, order("O-"+first.key, first.method), nil); err != nil || a.status != http.StatusAccepted || a.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the first payment's replay: %d %s %v", a.status, a.body, err)
	}
	for method := range ends {
		want := 0
		for _, a := range l.accepted {
			if a.method == method {
				want++
			}
		}
		a, err := w.get(all[2].url+"/v1/payments?limit=100&payment_method="+method, w.vars["PAYMENTS_API_KEY"])
		if page := decode[struct{ Data []any }](t, a); err != nil || len(page.Data) != min(want, 100) {
			t.Errorf("%d of %d payments are found by %s: %d %v", len(page.Data), want, method, a.status, err)
		}
	}
	w.useless(all[0], oldKeys, oldInbound, newInbound, first.id, email)
	w.must("audit", "-settled")
}

func (l *load) first() acceptance {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted[0]
}

// rotate takes both keysets one step on, in the environment of all that starts from now on.
func (w *world) rotate(step string) {
	w.t.Helper()
	for _, name := range keysets {
		_, next, ok := strings.Cut(strings.TrimSpace(w.must("secrets", step, name)), name+"=")
		if !ok || next == w.vars[name] {
			w.t.Fatalf("%s of %s gave nothing new", step, name)
		}
		w.vars[name] = next
	}
}

// reencrypted runs it until nothing is left but the second merchant's API key, which
// nobody uses.
func (w *world) reencrypted(s *service) {
	w.t.Helper()
	for _, operator := range []string{"PAYMENTS_OPERATOR_KEY", "PAYMENTS_OPERATOR_KEY_2"} {
		if a, err := w.get(s.url+"/v1/ops/sagas", w.vars[operator]); err != nil || a.status != http.StatusOK {
			w.t.Fatalf("%d %s %v", a.status, a.body, err)
		}
	}
	await(w.t, settleWithin, func() string {
		out, problem, code := run(w.t.Context(), w.vars, "secrets", "reencrypt")
		if code != 1 { // of the unused key
			w.t.Fatalf("exit code %d\n%s%s", code, out, problem)
		}
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if f[0] != "VALUES" && (f[2] != "0" || f[3] != "0") != (f[4] == "api_keys.mac") || f[4] == "api_keys.mac" && f[2] != "1" {
				return out
			}
		}
		return ""
	})
}

// useless shows that of the old secrets.
func (w *world) useless(s *service, oldKeys map[string]string, oldInbound, newInbound, paymentID string, email []byte) {
	t := w.t
	t.Helper()
	// Nothing that is stored opens with the old keysets.
	out, _, code := run(t.Context(), oldKeys, "secrets", "reencrypt", "-check")
	if code != 1 {
		t.Errorf("exit code %d with the old keysets", code)
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 5 && strings.HasSuffix(f[4], "ciphertext") && f[0] != f[3] {
			t.Errorf("with the old keysets: %s", line)
		}
	}
	// An API key that was not used while both peppers were there.
	if a, err := w.get(s.url+"/v1/payments", w.vars["PAYMENTS_API_KEY_2"]); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("an API key under the old pepper: %d %s %v", a.status, a.body, err)
	}
	// A ciphertext from before, put back where it was; the write model has a new one.
	if _, err := w.db.Exec(t.Context(), `UPDATE payment_view SET customer_email_ciphertext = $2 WHERE payment_id = $1`, paymentID, email); err != nil {
		t.Fatal(err)
	}
	if a, err := w.get(s.url+"/v1/payments/"+paymentID, w.vars["PAYMENTS_API_KEY"]); err != nil || a.status != http.StatusInternalServerError {
		t.Errorf("a ciphertext under the old key: %d %s %v", a.status, a.body, err)
	}
	run(t.Context(), w.vars, "secrets", "reencrypt")
	if p := w.payment(s, paymentID); p.Customer.Email != "ada@example.com" {
		t.Errorf("re-encrypted, its address is %q", p.Customer.Email)
	}
	// What somebody signs who has the provider's old secret.
	const notification = `{"id":"evt_1"}`
	for secret, want := range map[string]bool{oldInbound: false, newInbound: true} {
		mac, now := hmac.New(sha256.New, []byte(secret)), time.Now().Unix()
		fmt.Fprintf(mac, "%d.%s", now, notification)
		a, err := w.send(t.Context(), http.MethodPost, s.url+"/v1/provider/webhooks/simulator", "", notification,
			map[string]string{"Provider-Signature": fmt.Sprintf("t=%d,v1=%s", now, hex.EncodeToString(mac.Sum(nil)))})
		if err != nil || (a.status == http.StatusOK) != want || !want && decode[struct{ Code string }](t, a).Code != "signature_invalid" {
			t.Errorf("signed with a secret that is live (%v): %d %s %v", want, a.status, a.body, err)
		}
	}
}

// hook is the first merchant's endpoint, which accepts what one of the secrets signed
// that it was told.
type hook struct {
	w        *world
	id       string
	mu       sync.Mutex
	live     []*standardwebhooks.Webhook // the oldest first
	ended    bool                        // all but the newest secret, and what was under way with them
	received int
	unsigned int
	after    int // that came since then
	old      int // of those, signed with an old secret
}

func (w *world) hook(s *service) *hook {
	w.t.Helper()
	h := &hook{w: w}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender has ended
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.received++
		verified := false
		for i, v := range h.live {
			ok := v.Verify(body, r.Header) == nil
			verified = verified || ok
			if h.ended && ok && i < len(h.live)-1 {
				h.old++
			}
		}
		if h.ended {
			h.after++
		}
		if !verified {
			h.unsigned++
		}
	}))
	w.t.Cleanup(receiver.Close)
	h.know(s, "/v1/webhook_endpoints", fmt.Sprintf(`{"url":%q,"events":["*"]}`, receiver.URL), http.StatusCreated)
	return h
}

// know takes in a secret before anything can be signed with it that comes in.
func (h *hook) know(s *service, path, body string, status int) {
	h.w.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	a, err := h.w.send(h.w.t.Context(), http.MethodPost, s.url+path, h.w.vars["PAYMENTS_API_KEY"], body, map[string]string{"Idempotency-Key": "hook-" + fmt.Sprint(len(h.live))})
	if err != nil || a.status != status {
		h.w.t.Fatalf("POST %s: %d %s %v", path, a.status, a.body, err)
	}
	made := decode[struct{ ID, Secret string }](h.w.t, a)
	v, err := standardwebhooks.NewWebhook(made.Secret)
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.id, h.live = made.ID, append(h.live, v)
}

func (h *hook) rotate(s *service, overlap int) {
	h.w.t.Helper()
	h.know(s, "/v1/webhook_endpoints/"+h.id+"/rotate_secret", fmt.Sprintf(`{"overlap_seconds":%d}`, overlap), http.StatusCreated)
}

// verify waits for the last delivery.
func (h *hook) verify() {
	t := h.w.t
	t.Helper()
	await(t, settleWithin, func() string {
		if n := h.w.count(`SELECT count(*) FROM webhook_deliveries WHERE state <> 'succeeded'`); n > 0 {
			return fmt.Sprintf("%d deliveries are under way", n)
		}
		return ""
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.received == 0 || h.unsigned > 0 {
		t.Errorf("%d of %d deliveries were not signed with a live secret", h.unsigned, h.received)
	}
	if h.after == 0 || h.old > 0 {
		t.Errorf("%d of %d deliveries were signed with a secret that had ended", h.old, h.after)
	}
}
