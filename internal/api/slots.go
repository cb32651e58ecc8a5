package api

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/payment"
)

// heldKind is a way in which a request stays open for longer than its own work takes.
type heldKind string

const (
	heldWait   heldKind = "wait"   // for an outcome (Prefer: wait) or for the read model (Read-After)
	heldStream heldKind = "stream" // of events
	heldExport heldKind = "export" // as CSV
)

// The bounds that can refuse a slot.
const (
	boundMerchant = "merchant" // the merchant holds as many as one merchant may
	boundProcess  = "process"  // the merchant holds as many as are free for all others
)

// HeldLimits bound the requests that one process holds open at once, for each kind: of all
// callers, and of one merchant with all of its keys. A key that belongs to no merchant counts as
// a merchant of its own. A zero member takes its default.
type HeldLimits struct {
	Waits, WaitsOfMerchant     int // default 1000 and 200
	Streams, StreamsOfMerchant int // default 1000 and 100
	Exports, ExportsOfMerchant int // default 8 and 2
}

// slots is the one bound of every held request. A merchant gets a slot while it holds fewer than
// its own bound, and fewer than are still free. The second rule keeps the process fair: n busy
// merchants end with equal shares, and the share of one more merchant stays free for it.
type slots struct {
	bounds  map[heldKind]slotBound
	held    *prometheus.GaugeVec
	refused *prometheus.CounterVec

	mu    sync.Mutex
	taken map[heldKind]int
	of    map[slotHolder]int
}

type slotBound struct{ most, ofMerchant int }

type slotHolder struct {
	kind heldKind
	who  string
}

func newSlots(l HeldLimits, reg prometheus.Registerer) (*slots, error) {
	s := &slots{
		bounds: map[heldKind]slotBound{
			heldWait:   {cmp.Or(l.Waits, 1000), cmp.Or(l.WaitsOfMerchant, 200)},
			heldStream: {cmp.Or(l.Streams, 1000), cmp.Or(l.StreamsOfMerchant, 100)},
			heldExport: {cmp.Or(l.Exports, 8), cmp.Or(l.ExportsOfMerchant, 2)},
		},
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_http_held_requests", Help: "Requests that are held open, by kind: wait, stream or export.",
		}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_http_held_refused_total",
			Help: "Requests that were not held, by kind and by bound: merchant (it holds as many as one may) or process (as many as are free).",
		}, []string{"kind", "bound"}),
		taken: map[heldKind]int{}, of: map[slotHolder]int{},
	}
	for kind, b := range s.bounds {
		if b.most < 0 || b.ofMerchant < 0 {
			return nil, errors.New("api: no number of held requests can be negative")
		}
		s.held.WithLabelValues(string(kind))
		for _, bound := range []string{boundMerchant, boundProcess} {
			s.refused.WithLabelValues(string(kind), bound)
		}
	}
	for _, m := range []prometheus.Collector{s.held, s.refused} {
		if err := reg.Register(m); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	return s, nil
}

// take gives who a slot, which release gives back. Error: codeTooManyHeld.
func (s *slots) take(kind heldKind, who string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	holder := slotHolder{kind, who}
	held, b := s.of[holder], s.bounds[kind]
	switch {
	case held >= b.ofMerchant:
		s.refused.WithLabelValues(string(kind), boundMerchant).Inc()
		return nil, errTooManyHeld
	case held >= b.most-s.taken[kind]:
		s.refused.WithLabelValues(string(kind), boundProcess).Inc()
		return nil, errTooManyHeld
	}
	s.taken[kind]++
	s.of[holder]++
	s.held.WithLabelValues(string(kind)).Inc()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taken[kind]--
		if s.of[holder]--; s.of[holder] == 0 {
			delete(s.of, holder)
		}
		s.held.WithLabelValues(string(kind)).Dec()
	}), nil
}

var errTooManyHeld = payment.Errorf(codeTooManyHeld,
	"As many requests of this kind are held open as this merchant can have at this moment. Repeat this one after the time in Retry-After.")

// hold takes a slot for the request. The caller is a merchant with all of its keys, or a key that
// belongs to no merchant.
func (s *server) hold(c *call, kind heldKind) (release func(), err error) {
	return s.slots.take(kind, cmp.Or(c.principal.MerchantID, c.principal.KeyID))
}
