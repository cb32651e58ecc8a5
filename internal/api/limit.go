package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"payments/internal/payment"
)

// maxBuckets of each kind are remembered. What is forgotten begins again with a
// full bucket, so that beyond so many callers at once the limit is a looser one.
const maxBuckets = 10_000

// RateLimits of one process: what it grants, every other process grants too. The
// zero value limits nobody.
type RateLimits struct {
	PerSecond, Burst int // of one API key; PerSecond 0: no limit
	// Of one remote address (an IPv6 address by its /64), for what is refused without
	// a caller that is known: a wrong key, a wrong signature, a path that is not there.
	// Wrong keys with one id have a tenth of it, from all addresses together.
	// A caller with a valid key is never limited by these, whatever others do at the same address.
	UnauthenticatedPerSecond, UnauthenticatedBurst int
	Now                                            func() time.Time // required with a limit
}

// limiter is a token bucket for each key of a kind. A nil one limits nobody.
type limiter[K comparable] struct {
	name      string // of the quota policy
	perSecond rate.Limit
	burst     int
	now       func() time.Time
	buckets   *lru.Cache[K, *rate.Limiter]
	limited   prometheus.Counter
}

func newLimiter[K comparable](name string, perSecond, burst int, now func() time.Time, limited prometheus.Counter) (*limiter[K], error) {
	if perSecond == 0 {
		return nil, nil //nolint:nilnil // nil limits nobody
	}
	if perSecond < 0 || burst < 1 || now == nil {
		return nil, fmt.Errorf("api: the rate limit %s needs a rate, a burst and a clock", name)
	}
	buckets, err := lru.New[K, *rate.Limiter](maxBuckets)
	if err != nil {
		return nil, err
	}
	return &limiter[K]{name, rate.Limit(perSecond), burst, now, buckets, limited}, nil
}

func (l *limiter[K]) bucket(k K) *rate.Limiter {
	if b, ok := l.buckets.Get(k); ok {
		return b
	}
	b := rate.NewLimiter(l.perSecond, l.burst)
	if earlier, ok, _ := l.buckets.PeekOrAdd(k, b); ok {
		return earlier
	}
	return b
}

// take counts one request and says so in the header fields of
// draft-ietf-httpapi-ratelimit-headers-10: q requests in w seconds are a full
// bucket and the time it takes to fill; r are left, and in t seconds it is full.
func (l *limiter[K]) take(h http.Header, k K) error {
	if l == nil {
		return nil
	}
	allowed := l.allow(k)
	l.tell(h, k)
	if allowed {
		return nil
	}
	return l.refuse(h, k)
}

// allow counts one request, and says nothing of it.
func (l *limiter[K]) allow(k K) bool { return l.bucket(k).AllowN(l.now(), 1) }

func (l *limiter[K]) left(k K) float64 { return max(l.bucket(k).TokensAt(l.now()), 0) }

// refuse is the answer to a request that was not allowed.
func (l *limiter[K]) refuse(h http.Header, k K) error {
	l.limited.Inc()
	h.Set("Retry-After", strconv.Itoa(max(l.seconds(1-l.left(k)), 1)))
	return errRateLimited
}

var errRateLimited = payment.Errorf(codeRateLimited, "There were too many requests. Repeat this one after the time in Retry-After.")

func (l *limiter[K]) tell(h http.Header, k K) {
	left := l.left(k)
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", l.name, l.burst, l.seconds(float64(l.burst))))
	h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", l.name, int(left), l.seconds(float64(l.burst)-left)))
}

// wait for one request's worth, for what a request does beyond the usual.
func (l *limiter[K]) wait(ctx context.Context, k K) error {
	if l == nil {
		return nil
	}
	return l.bucket(k).Wait(ctx)
}

// seconds, whole ones, until so many tokens have come.
func (l *limiter[K]) seconds(tokens float64) int {
	return int(math.Ceil(tokens / float64(l.perSecond)))
}

// limits of keys are taken after it was seen who calls, so that nobody uses up what
// belongs to another. The unauthenticated limit is taken before anything is asked of the database.
type limits struct {
	keys            *limiter[string]
	unauthenticated *limiter[netip.Addr]
	wrongKeys       *limiter[string] // by the id that they name
}

const (
	// Wrong keys with one id have this part of an address's budget, and at least so many at once:
	// enough for a person's typing errors.
	wrongKeyShare    = 10
	wrongKeyMinBurst = 10
)

func newLimits(c RateLimits, limited *prometheus.CounterVec) (l limits, err error) {
	if l.keys, err = newLimiter[string]("key", c.PerSecond, c.Burst, c.Now, limited.WithLabelValues("key")); err != nil {
		return limits{}, err
	}
	if l.unauthenticated, err = newLimiter[netip.Addr]("address", c.UnauthenticatedPerSecond, c.UnauthenticatedBurst, c.Now, limited.WithLabelValues("address")); err != nil || l.unauthenticated == nil {
		return l, err
	}
	l.wrongKeys, err = newLimiter[string]("address", max(c.UnauthenticatedPerSecond/wrongKeyShare, 1), max(c.UnauthenticatedBurst/wrongKeyShare, wrongKeyMinBurst),
		c.Now, limited.WithLabelValues("key_id"))
	return l, err
}

// lookup is the limit of access.AuthenticateWithin: it counts a key that is not recognized, before
// it costs a query. It is nil, no limit, without an unauthenticated limit.
func (l limits) lookup(c *call) func(keyID string) error {
	if l.unauthenticated == nil {
		return nil
	}
	return func(keyID string) error {
		from := remote(c.r)
		c.counted = func() error { return nil }
		switch {
		case !l.unauthenticated.allow(from):
			c.counted = func() error { return l.unauthenticated.refuse(c.w.Header(), from) }
		case keyID != "" && !l.wrongKeys.allow(keyID):
			c.counted = func() error { return l.wrongKeys.refuse(c.w.Header(), keyID) }
		default:
			return nil
		}
		return errRateLimited
	}
}

// refused counts the refusal of a caller that nobody knows, unless lookup has counted it. It
// stays as it is until there were too many of them.
func (l limits) refused(c *call, err error) error {
	if _, ok := errors.AsType[*payment.Error](err); !ok {
		return err // a fault of ours
	}
	if c.counted != nil {
		l.unauthenticated.tell(c.w.Header(), remote(c.r))
		return cmp.Or(c.counted(), err)
	}
	if limited := l.unauthenticated.take(c.w.Header(), remote(c.r)); limited != nil {
		return limited
	}
	return err
}

// remote is the peer's address: of a proxy where there is one. All addresses that
// cannot be read count as one.
func remote(r *http.Request) netip.Addr {
	a := peer(r).Unmap().WithZone("")
	if a.Is6() { // one subscriber has a /64 of them
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
