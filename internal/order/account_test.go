package order_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/provider/simulator"
	"payments/internal/provider/stripe"
	"payments/internal/provider/stripe/stripetest"
)

// deploy starts the service with a key of Stripe's.
func (w *world) deploy(key, url string) {
	w.t.Helper()
	c, err := stripe.New(key, stripe.Config{URL: url, Timeout: 200 * time.Millisecond, Now: time.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	w.begin(c)
}

// begin starts the service with a provider, as serve does: it learns the account if it can.
func (w *world) begin(p provider.Provider) {
	w.t.Helper()
	w.config.Provider = p
	w.orders = order.New(w.config)
	_, _ = w.orders.LearnAccount(w.t.Context())
}

func (w *world) turn() {
	w.t.Helper()
	worker := w.worker()
	if _, err := worker.RunOnce(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	worker.Drain()
}

// waiting names what the payment's or refund's saga waits for.
func (w *world) waiting(definition string) string {
	w.t.Helper()
	return one[string](w, `SELECT state || ' at ' || step || ' for ' || coalesce(waits_for, 'nothing') FROM sagas WHERE definition = $1`, definition)
}

// A refund whose answer was lost, and a deploy with the key of another account (or of
// test mode): the refund is not failed, so that nobody makes it again.
func TestAWrongKeyDoesNotFailARefundThatWasGiven(t *testing.T) {
	w := newWorld(t)
	s := stripetest.New(t)
	live := s.Account("sk_live_a")
	s.Account("sk_test_b")
	w.deploy("sk_live_a", s.URL)
	id := w.placed("pm_card_visa", "")
	w.settle()
	half := int64(2000)
	s.Break(stripetest.LostAnswer("/v1/refunds"))
	if _, err := w.refund(t.Context(), id, &half); err != nil {
		t.Fatal(err)
	}
	for w.count(`SELECT count(*) FROM sagas WHERE definition = 'refund' AND resolving`) == 0 {
		w.turn()
	}
	w.deploy("sk_test_b", s.URL)
	asked := len(s.Requests())
	attempts := w.count(`SELECT count(*) FROM saga_attempts`)
	w.settle()
	if got := w.waiting("refund"); got != "running at refund_payment for stripe:"+live.ID {
		t.Errorf("with the wrong key: %s", got)
	}
	if n := len(s.Requests()); n != asked || w.count(`SELECT count(*) FROM saga_attempts`) != attempts {
		t.Errorf("with the wrong key: %d requests and %d attempts more", n-asked, w.count(`SELECT count(*) FROM saga_attempts`)-attempts)
	}
	w.deploy("sk_live_a", s.URL)
	w.settle()
	if _, err := w.refund(t.Context(), id, &half); err != nil {
		t.Fatal(err)
	}
	w.settle()
	refunded, refunding := w.amounts(id)
	if at := live.Refunded(); at != refunded+refunding || refunded != 2*half {
		t.Errorf("invariant 3: %d are refunded here, and %d at the provider", refunded+refunding, at)
	}
}

// The same mistake, and a payment that stood still before its capture.
func TestAWrongKeyDoesNotDeclineACapture(t *testing.T) {
	w := newWorld(t)
	s := stripetest.New(t)
	live := s.Account("sk_live_a")
	s.Account("sk_test_b")
	w.deploy("sk_live_a", s.URL)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.deploy("sk_test_b", s.URL)
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, id)) })
	w.settle()
	if got := w.waiting("order_manual_capture"); got != "running at capture_payment for stripe:"+live.ID {
		t.Errorf("with the wrong key: %s", got)
	}
	other := w.placed("pm_card_visa", "") // which the other account takes
	w.settle()
	// The account's key is rotated meanwhile: it is the account that counts.
	s.RevokeKey("sk_live_a")
	live.AddKey("sk_live_a2")
	w.deploy("sk_live_a2", s.URL)
	w.settle()
	for _, p := range []string{id, other} {
		if st := w.status(p); st != "succeeded" {
			t.Errorf("%s is %s; events %v", p, st, w.events(p))
		}
	}
	if n := w.count(`SELECT count(DISTINCT provider_account) FROM payments`); n != 2 {
		t.Errorf("the payments name %d accounts", n)
	}
}

// The provider itself is another one from now on.
func TestPaymentsOfAnotherProviderWait(t *testing.T) {
	w := newWorld(t)
	bank := w.config.Provider
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	s := stripetest.New(t)
	s.Account("sk_live_a")
	w.deploy("sk_live_a", s.URL)
	w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, id)) })
	w.settle()
	if got := w.waiting("order_manual_capture"); !strings.HasPrefix(got, "compensating at void_authorization for simulator:led_") {
		t.Errorf("with another provider: %s", got)
	}
	w.begin(bank)
	w.settle()
	if st := w.status(id); st != "canceled" {
		t.Errorf("it is %s", st)
	}
	w.audited()
}

// Another ledger answers at the provider's URL while the service runs: it is asked for
// nothing but its name.
func TestAnotherLedgerIsAskedForNothing(t *testing.T) {
	w := newWorld(t)
	direct := w.config.Provider
	sim, err := simulator.Open(filepath.Join(t.TempDir(), "other.db"), simulator.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	own, err := url.Parse(w.bank)
	if err != nil {
		t.Fatal(err)
	}
	var swapped atomic.Bool
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(own) }}
	door := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if swapped.Load() {
			sim.Handler().ServeHTTP(rw, r)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
		door.Close()
		transport.CloseIdleConnections()
	})
	bank, err := provider.NewHTTP(door.URL, provider.HTTPConfig{Timeout: 150 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bank.Close)
	w.begin(bank)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	swapped.Store(true)
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, id)) })
	w.settle() // the first request is refused, and the account is asked for again
	if _, err := w.orders.LearnAccount(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := w.waiting("order_manual_capture"); !strings.HasPrefix(got, "running at capture_payment for simulator:led_") {
		t.Errorf("before another ledger: %s", got)
	}
	w.bank = door.URL
	if got := w.ledger(id); len(got) != 0 {
		t.Errorf("the other ledger did %v", got)
	}
	w.begin(direct)
	w.settle()
	if st := w.status(id); st != "succeeded" {
		t.Errorf("it is %s", st)
	}
}

// away names no account.
type away struct{ provider.Provider }

func (away) Account(context.Context) (string, error) { return "", errors.New("connection refused") }

func TestNoCallIsMadeBeforeTheAccountIsKnown(t *testing.T) {
	w := newWorld(t)
	bank := w.config.Provider
	w.begin(away{bank})
	id := w.placed("pm_card_visa", "")
	w.settle()
	if got := w.waiting("order"); got != "running at authorize_payment for the provider's account" || len(w.ledger(id)) != 0 {
		t.Errorf("%s; the bank did %v", got, w.ledger(id))
	}
	w.begin(bank)
	w.settle()
	if st := w.status(id); st != "succeeded" {
		t.Errorf("it is %s", st)
	}
	account, err := bank.Account(t.Context())
	if got := one[string](w, `SELECT provider_account FROM payments`); err != nil || got != account {
		t.Errorf("its account is %q, want %q (%v)", got, account, err)
	}
}

// The key is revoked while a capture is under way: it is not given up, however long that lasts.
func TestARevokedKeyGivesNothingUp(t *testing.T) {
	w := newWorld(t)
	w.policy.KeyLifetime = time.Nanosecond
	s := stripetest.New(t)
	a := s.Account("sk_live_a")
	w.deploy("sk_live_a", s.URL)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.policy.KeyLifetime = time.Hour
	s.RevokeKey("sk_live_a")
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, id)) })
	for w.count(`SELECT count(*) FROM sagas WHERE waits_for IS NOT NULL`) == 0 {
		w.turn()
	}
	w.policy.KeyLifetime = time.Nanosecond
	for range 3 {
		w.exec(`UPDATE sagas SET due_at = now(), waits_for = NULL`)
		w.settle()
	}
	if got := w.waiting("order_manual_capture"); got != "running at capture_payment for the provider's account" {
		t.Errorf("without a key: %s", got)
	}
	w.policy.KeyLifetime = time.Hour
	a.AddKey("sk_live_a2")
	w.deploy("sk_live_a2", s.URL)
	w.settle()
	if st := w.status(id); st != "succeeded" {
		t.Errorf("it is %s", st)
	}
}

// Payments from before accounts were recorded are of the account that the service is first
// used with, whatever it is used with later.
func TestEarlierPaymentsInheritTheFirstAccount(t *testing.T) {
	w := newWorld(t)
	s := stripetest.New(t)
	a := s.Account("sk_live_a")
	s.Account("sk_live_b")
	w.deploy("sk_live_a", s.URL)
	held, taken := w.placed("pm_card_visa", payment.CaptureManual), w.placed("pm_card_visa", "")
	w.settle()
	w.exec(`UPDATE sagas SET data = data - 'provider_account'`)
	w.exec(`UPDATE payments SET provider_account = NULL`)
	w.exec(`DELETE FROM provider_accounts`)
	w.deploy("sk_live_a", s.URL) // the release that records accounts
	w.deploy("sk_live_b", s.URL) // and a mistake, before anything was recorded
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, held)) })
	if _, err := w.refund(t.Context(), taken, nil); err != nil {
		t.Fatal(err)
	}
	w.settle()
	for _, definition := range []string{"order_manual_capture", "refund"} {
		if got := w.waiting(definition); !strings.HasSuffix(got, " for stripe:"+a.ID) {
			t.Errorf("%s: %s", definition, got)
		}
	}
	done, err := w.orders.Inherit(t.Context())
	if err != nil || done.Payments != 2 || done.More || len(done.Twice) > 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if got := one[string](w, `SELECT string_agg(DISTINCT provider_account, ' ') FROM payments`); got != "stripe:"+a.ID {
		t.Errorf("the payments are of %q", got)
	}
	w.deploy("sk_live_a", s.URL)
	w.settle()
	if st, refund := w.status(held), one[string](w, `SELECT status FROM refunds`); st != "succeeded" || refund != "succeeded" {
		t.Errorf("the payment is %s, the refund %s", st, refund)
	}
}

// Two payments with one reference are from a mistake that nobody has mended: neither gets
// an account, and both are named.
func TestEarlierPaymentsWithOneReferenceAreReported(t *testing.T) {
	w := newWorld(t)
	one, two, three := w.placed("pm_card_visa", ""), w.placed("pm_card_visa", ""), w.placed("pm_card_visa", "")
	w.settle()
	w.exec(`UPDATE payments SET provider_account = NULL`)
	w.exec(`UPDATE payments SET capture_reference = (SELECT capture_reference FROM payments WHERE id = $1) WHERE id = $2`, one, two)
	w.exec(`UPDATE provider_accounts SET first_used_at = now()`)
	done, err := w.orders.Inherit(t.Context())
	if err != nil || done.Payments != 1 || len(done.Twice) != 2 || done.Twice[0] != min(one, two) {
		t.Errorf("%+v, %v", done, err)
	}
	if n := w.count(`SELECT count(*) FROM payments WHERE provider_account IS NOT NULL AND id = $1`, three); n != 1 {
		t.Error("the third has no account")
	}
}

func TestTheServiceSaysThatItsAccountIsAnother(t *testing.T) {
	w := newWorld(t)
	s := stripetest.New(t)
	a, b := s.Account("sk_live_a"), s.Account("sk_live_b")
	for n, want := range []order.AccountUse{
		{Account: "stripe:" + a.ID}, {Account: "stripe:" + a.ID}, {Account: "stripe:" + b.ID, Before: "stripe:" + a.ID}, {Account: "stripe:" + b.ID},
	} {
		c, err := stripe.New(map[bool]string{true: "sk_live_a", false: "sk_live_b"}[n < 2], stripe.Config{URL: s.URL, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		w.config.Provider = c
		use, err := order.New(w.config).LearnAccount(t.Context())
		c.Close()
		if err != nil || use.Account != want.Account || use.Before != want.Before {
			t.Errorf("start %d: %+v, %v", n, use, err)
		}
	}
}
