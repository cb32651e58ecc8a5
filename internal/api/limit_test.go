package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/access"
	"payments/internal/payment"
)

// limit serves the world again, with limits and a clock that the test moves.
func (w *world) limit(l RateLimits) *time.Time {
	w.t.Helper()
	now := time.Now()
	l.Now = func() time.Time { return now }
	w.registry = prometheus.NewRegistry()
	w.api.RateLimits, w.api.Registerer = l, w.registry
	w.server = w.serve(w.api)
	return &now
}

func (w *world) rate(a answer, policy, left string) {
	w.t.Helper()
	if p, l := a.header.Get("RateLimit-Policy"), a.header.Get("RateLimit"); p != policy || l != left {
		w.t.Errorf("%d with RateLimit-Policy %s and RateLimit %s, want %s and %s", a.status, p, l, policy, left)
	}
}

func TestAKeyHasItsOwnBudget(t *testing.T) {
	w := newWorld(t)
	now := w.limit(RateLimits{PerSecond: 2, Burst: 3, UnauthenticatedPerSecond: 1, UnauthenticatedBurst: 1000})
	get := func(key string) answer { t.Helper(); return w.do("GET", "/v1/stock", key, "") }
	const policy = `"key";q=3;w=2`
	for _, left := range []string{`"key";r=2;t=1`, `"key";r=1;t=1`, `"key";r=0;t=2`} {
		a := get(w.merchant)
		w.rate(a, policy, left)
		if a.status != http.StatusOK || a.header.Get("Retry-After") != "" {
			t.Errorf("%d, Retry-After %q", a.status, a.header.Get("Retry-After"))
		}
	}
	a := get(w.merchant)
	w.refused("a request too many", a, http.StatusTooManyRequests, codeRateLimited)
	w.rate(a, policy, `"key";r=0;t=2`)
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	// Limited before anything is written, and a refusal of the policy counts as well.
	w.refused("a payment too many", w.post(w.merchant, good, key("k")...), http.StatusTooManyRequests, codeRateLimited)
	if n := w.rows(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	for range 3 {
		w.refused("operator pays", w.post(w.operator, "{"), http.StatusForbidden, payment.CodeForbidden)
	}
	w.refused("operator pays", w.post(w.operator, "{"), http.StatusTooManyRequests, codeRateLimited)
	// Nobody can use it up who has the id alone, which is public.
	stolen := access.FormatKey(access.ModeTest, payment.PrefixKey+"_"+w.other[len("sk_test_"):len("sk_test_")+26], [20]byte{})
	for range 10 {
		w.refused("a wrong secret", get(stolen), http.StatusUnauthorized, payment.CodeUnauthenticated)
	}
	w.rate(get(w.other), policy, `"key";r=2;t=1`)

	*now = now.Add(500 * time.Millisecond)
	w.rate(get(w.merchant), policy, `"key";r=0;t=2`)
	w.refused("again too many", get(w.merchant), http.StatusTooManyRequests, codeRateLimited)
	*now = now.Add(time.Hour)
	w.rate(get(w.merchant), policy, `"key";r=2;t=1`)

	if err := testutil.GatherAndCompare(w.registry, strings.NewReader(`
		# HELP payments_http_rate_limited_total Requests answered 429, by whose budget it was: an API key's or, of unauthenticated callers, a remote address's or a key id's.
		# TYPE payments_http_rate_limited_total counter
		payments_http_rate_limited_total{by="address"} 0
		payments_http_rate_limited_total{by="key"} 4
		payments_http_rate_limited_total{by="key_id"} 0
	`), "payments_http_rate_limited_total"); err != nil {
		t.Error(err)
	}
}

func TestUnauthenticatedCallersShareTheBudgetOfTheirAddress(t *testing.T) {
	w := newWorld(t)
	now := w.limit(RateLimits{UnauthenticatedPerSecond: 1, UnauthenticatedBurst: 4})
	const notification = `{"id":"evt_1"}`
	strange := []func() answer{
		func() answer { return w.do("GET", "/v1/payments", "", "") },
		func() answer { return w.do("GET", "/nowhere", "", "") },
		func() answer { return w.do("DELETE", "/v1/payments", "", "") },
		func() answer {
			return w.do("POST", "/v1/provider/webhooks/simulator", "", notification, "Provider-Signature", signed("whsec_wrong", notification))
		},
	}
	for i, status := range []int{401, 404, 405, 400} {
		a := strange[i]()
		if a.status != status {
			t.Errorf("%d %s, want %d", a.status, a.body, status)
		}
		w.rate(a, `"address";q=4;w=4`, fmt.Sprintf(`"address";r=%d;t=%d`, 3-i, i+1))
	}
	for _, ask := range strange {
		w.refused("an unauthenticated call too many", ask(), http.StatusTooManyRequests, codeRateLimited)
	}
	// A caller with a key is not limited at the same address.
	if a := w.do("GET", "/v1/stock", w.merchant, ""); a.status != http.StatusOK || a.header.Get("RateLimit") != "" {
		t.Errorf("with a key: %d %v", a.status, a.header)
	}
	if a := w.do("POST", "/v1/provider/webhooks/simulator", "", notification, "Provider-Signature", signed(providerSecret, notification)); a.status == http.StatusTooManyRequests {
		t.Errorf("the provider is taken for an unauthenticated caller: %s", a.body)
	}
	*now = now.Add(time.Second)
	w.refused("one more", strange[0](), http.StatusUnauthorized, payment.CodeUnauthenticated)
	w.refused("and no more", strange[0](), http.StatusTooManyRequests, codeRateLimited)
}

// Wrong secrets with one id are limited from all addresses together. Its holder is not, also when
// the process has not seen it before, and neither is a key that was made after it was tried.
func TestWrongKeysAreLimitedByTheIDThatTheyName(t *testing.T) {
	w := newWorld(t)
	w.limit(RateLimits{UnauthenticatedPerSecond: 10, UnauthenticatedBurst: 1000})
	idOf := func(key string) string { return payment.PrefixKey + "_" + key[len("sk_test_"):][:26] }
	get := func(key string) answer { t.Helper(); return w.do("GET", "/v1/stock", key, "") }
	unknown := w.ids.New(payment.PrefixKey)
	for name, id := range map[string]string{"a key's id": idOf(w.merchant), "an id of nothing": unknown} {
		for i := range 1000 / wrongKeyShare {
			if a := get(access.FormatKey(access.ModeTest, id, [20]byte{byte(i)})); a.status != http.StatusUnauthorized {
				t.Fatalf("%s, wrong secret %d: %d %s", name, i, a.status, a.body)
			}
		}
		for range 5 {
			a := get(access.FormatKey(access.ModeTest, id, [20]byte{255}))
			if w.refused(name, a, http.StatusTooManyRequests, codeRateLimited); a.header.Get("Retry-After") != "1" {
				t.Errorf("%s: headers %v", name, a.header)
			}
		}
	}
	if a := get(w.merchant); a.status != http.StatusOK || a.header.Get("Retry-After") != "" {
		t.Errorf("the holder: %d %v", a.status, a.header)
	}
	if a := get(access.FormatKey(access.ModeTest, w.ids.New(payment.PrefixKey), [20]byte{})); a.status != http.StatusUnauthorized {
		t.Errorf("another id: %d %s", a.status, a.body)
	}
	w.refused("no key at all", get(""), http.StatusUnauthorized, payment.CodeUnauthenticated)
	if err := testutil.GatherAndCompare(w.registry, strings.NewReader(`
		# HELP payments_http_rate_limited_total Requests answered 429, by whose budget it was: an API key's or, of unauthenticated callers, a remote address's or a key id's.
		# TYPE payments_http_rate_limited_total counter
		payments_http_rate_limited_total{by="address"} 0
		payments_http_rate_limited_total{by="key"} 0
		payments_http_rate_limited_total{by="key_id"} 10
	`), "payments_http_rate_limited_total"); err != nil {
		t.Error(err)
	}
}

func TestBucketsAreBounded(t *testing.T) {
	l, err := newLimiter[netip.Addr]("address", 1, 1, time.Now, prometheus.NewCounter(prometheus.CounterOpts{Name: "limited_total", Help: "Of the test."}))
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr("2001:db8::")
	for range maxBuckets + 100 {
		if err := l.take(http.Header{}, a); err != nil {
			t.Fatal(err)
		}
		a = a.Next()
	}
	if n := l.buckets.Len(); n != maxBuckets {
		t.Errorf("%d buckets are kept", n)
	}
}

func TestRemote(t *testing.T) {
	for at, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::",
		"[fe80::1%eth0]:80": "fe80::", "@": "invalid IP",
	} {
		if got := remote(&http.Request{RemoteAddr: at}).String(); got != want {
			t.Errorf("%s is %s, want %s", at, got, want)
		}
	}
}

func TestLimitsThatAreRefused(t *testing.T) {
	for _, l := range []RateLimits{
		{PerSecond: 1, Burst: 1}, {PerSecond: 1, Now: time.Now}, {PerSecond: -1, Burst: 1, Now: time.Now}, {UnauthenticatedPerSecond: 1, Now: time.Now},
	} {
		m, err := newMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newLimits(l, m.limited); err == nil {
			t.Errorf("%+v is accepted", l)
		}
	}
}
