package saga

import (
	"log/slog"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// callsWatch tells the metrics and the log how this process calls the other system, so that an
// outage is seen when it begins.
type callsWatch struct {
	metrics metrics
	log     *slog.Logger
	most    int
	now     func() time.Time

	mu      sync.Mutex
	opened  time.Time // zero while the circuit is closed
	allowed int
}

func newCallsWatch(m metrics, log *slog.Logger, most int, now func() time.Time) *callsWatch {
	w := &callsWatch{metrics: m, log: log, most: most, now: now, allowed: most}
	w.state(gobreaker.StateClosed)
	return w
}

func (w *callsWatch) state(now gobreaker.State) {
	for state, name := range circuitStates {
		w.metrics.circuit.WithLabelValues(name).Set(set(state == now))
	}
	w.metrics.open.Set(set(now != gobreaker.StateClosed))
}

func set(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// circuitChanged logs the beginning and the end of an outage. Between them the circuit is half open
// for each call that asks whether the other system is back, which is told at debug.
func (w *callsWatch) circuitChanged(from, to gobreaker.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state(to)
	switch {
	case to == gobreaker.StateClosed:
		w.log.Info("circuit closed", "open_for", w.now().Sub(w.opened))
		w.opened = time.Time{}
	case from == gobreaker.StateClosed:
		w.opened = w.now()
		w.log.Warn("circuit opened", "unknown_in_a_row", tripAfter)
	default:
		w.log.Debug("circuit changed", "state", circuitStates[to], "open_for", w.now().Sub(w.opened))
	}
}

// allowedChanged logs each fall, and when all calls are allowed again. The rises between are many.
func (w *callsWatch) allowedChanged(allowed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.metrics.allowed.Set(float64(allowed))
	before := w.allowed
	w.allowed = allowed
	switch {
	case allowed < before:
		w.log.Warn("fewer calls to the provider", "before", before, "allowed", allowed, "most", w.most)
	case allowed > before && allowed == w.most:
		w.log.Info("all calls to the provider allowed", "allowed", allowed)
	case allowed > before:
		w.log.Debug("more calls to the provider", "before", before, "allowed", allowed, "most", w.most)
	}
}
