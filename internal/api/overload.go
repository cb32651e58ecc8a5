package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/payment"
)

const (
	// PollUnfinished is how often a process counts that is asked for payments and near its
	// bound. Far below it a count a second is enough.
	PollUnfinished = 50 * time.Millisecond
	pollFar        = time.Second
	// A count that is older than this refuses nobody: the loop that counts has failed, and
	// what it fails for is likely to fail the requests as well.
	unfinishedStale = 10 * time.Second
	// recentKeys are the requests that are let through while the service is over its
	// bounds: they were accepted before, and are repeated for their answer.
	recentKeys = 10_000
)

// AdmissionConfig is complete but for Registerer.
type AdmissionConfig struct {
	// Count tells how many payments are accepted and unfinished, up to most, and for how
	// long the oldest of them has waited that nobody has begun.
	Count func(ctx context.Context, most int) (unfinished int, oldest time.Duration, err error)
	// Most are unfinished before payments are refused. 0: no bound.
	Most int
	// Oldest is for how long a payment may wait to be begun before others are refused.
	Oldest     time.Duration
	Now        func() time.Time
	Registerer prometheus.Registerer
}

// Admission refuses payments beyond what the service finishes: accepted faster than
// finished, they would take the database's time from those accepted before, and none
// would end. It decides in memory, before a request costs a statement.
type Admission struct {
	AdmissionConfig
	recent *lru.Cache[[sha256.Size]byte, struct{}]

	refused    *prometheus.CounterVec
	unfinished *prometheus.GaugeVec // this and age have no labels, and no series before they are measured
	age        *prometheus.GaugeVec

	mu        sync.Mutex
	asked     bool // since the last count
	counted   time.Time
	count     int
	oldest    time.Duration
	accepting int // requests that may be accepted yet
	accepted  int // since the last count began
}

// NewAdmission needs every member of its config.
func NewAdmission(c AdmissionConfig) (*Admission, error) {
	if c.Count == nil || c.Most < 0 || c.Oldest <= 0 || c.Now == nil || c.Registerer == nil {
		return nil, errors.New("api: an admission needs a count, its bounds, a clock and a registerer")
	}
	recent, err := lru.New[[sha256.Size]byte, struct{}](recentKeys)
	if err != nil {
		return nil, err
	}
	a := &Admission{
		AdmissionConfig: c, recent: recent,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_http_overloaded_total", Help: "Payments refused with 503 overloaded, by the bound that was reached: unfinished or oldest.",
		}, []string{"bound"}),
		unfinished: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_unfinished", Help: "Payments and refunds that are due or in a worker's hand, as this process counted last; not above its bound.",
		}, nil),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_unfinished_oldest_seconds", Help: "How long the oldest payment has waited that no worker has begun, as this process saw last.",
		}, nil),
	}
	for _, m := range []prometheus.Collector{a.refused, a.unfinished, a.age} {
		if err := c.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	return a, nil
}

// RunOnce counts the unfinished payments, unless nobody has asked for one since.
func (a *Admission) RunOnce(ctx context.Context) (again bool, err error) {
	a.mu.Lock()
	since := a.Now().Sub(a.counted)
	idle := a.Most == 0 || !a.asked && a.count == 0 && !a.counted.IsZero()
	far := 2*(a.count+a.accepted+a.accepting) < a.Most && a.oldest <= a.Oldest/2 && since < pollFar
	if idle || far {
		a.mu.Unlock()
		return false, nil
	}
	a.asked = false
	before := a.accepted
	a.mu.Unlock()
	count, oldest, err := a.Count(ctx, a.Most)
	if err != nil {
		return false, err
	}
	a.unfinished.WithLabelValues().Set(float64(count))
	a.age.WithLabelValues().Set(oldest.Seconds())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counted, a.count, a.oldest = a.Now(), count, oldest
	a.accepted -= before
	return false, nil
}

// admit lets a request be accepted, or refuses it. done has to be called once, with
// whether a payment was made.
func (a *Admission) admit() (done func(made bool), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = true
	if bound := a.reached(); bound != "" {
		a.refused.WithLabelValues(bound).Inc()
		return nil, errOverloaded
	}
	a.accepting++
	return func(made bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.accepting--
		if made {
			a.accepted++
		}
	}, nil
}

func (a *Admission) reached() (bound string) {
	switch {
	case a.Most == 0:
		return ""
	case a.Now().Sub(a.counted) > unfinishedStale:
		return ""
	case a.count+a.accepted+a.accepting >= a.Most:
		return "unfinished"
	case a.oldest > a.Oldest:
		return "oldest"
	}
	return ""
}

var errOverloaded = payment.Errorf(codeOverloaded,
	"The service has as many unfinished payments as it can take. Repeat the request after the time in Retry-After, with the same Idempotency-Key.")

// requestOf tells a request for a payment and its repetitions from others. It proves
// nothing of who sent it.
func requestOf(r *http.Request) (id [sha256.Size]byte, ok bool) {
	authorization, key := r.Header.Values("Authorization"), r.Header.Values("Idempotency-Key")
	if len(authorization) != 1 || len(key) != 1 {
		return id, false
	}
	return sha256.Sum256([]byte(strconv.Itoa(len(authorization[0])) + " " + authorization[0] + key[0])), true
}

// admitted is handle for a route whose requests are refused beyond the bounds. A request that
// was accepted by this process before is let through: it makes nothing, and waits for its answer.
func (a *Admission) admitted(c *call, handle func() error) error {
	if a == nil {
		return handle()
	}
	id, named := requestOf(c.r)
	if named && a.recent.Contains(id) {
		return handle()
	}
	done, err := a.admit()
	if err != nil {
		return err
	}
	c.placed = func(made bool) {
		if named {
			a.recent.Add(id, struct{}{})
		}
		done(made)
		done = func(bool) {}
	}
	defer func() { done(false) }()
	return handle()
}
