// Package loop runs every background loop of the service in one way, and knows
// when each last turned, so that a dead loop cannot hide behind a live process.
//
// It imports no other package of the service.
package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// Monitor holds the time of each loop's last good turn.
type Monitor struct {
	now    func() time.Time
	turns  *prometheus.GaugeVec
	bounds *prometheus.GaugeVec
	errs   *prometheus.CounterVec
	mu     sync.Mutex
	last   map[string]time.Time
	within map[string]time.Duration
}

// NewMonitor registers payments_loop_last_turn_timestamp_seconds,
// payments_loop_turn_within_seconds and payments_loop_errors_total, by loop. Each loop
// has all three from its start, so that an alert also sees a loop that never turned.
func NewMonitor(now func() time.Time, reg prometheus.Registerer) *Monitor {
	m := &Monitor{
		now: now, last: map[string]time.Time{}, within: map[string]time.Duration{},
		turns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_loop_last_turn_timestamp_seconds", Help: "When the loop last turned without an error, or when it was started.",
		}, []string{"loop"}),
		bounds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_loop_turn_within_seconds", Help: "The longest time between two turns of a healthy loop.",
		}, []string{"loop"}),
		errs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_loop_errors_total", Help: "Turns that ended in an error.",
		}, []string{"loop"}),
	}
	reg.MustRegister(m.turns, m.bounds, m.errs)
	return m
}

// Expect names a loop that must turn at least once within d.
func (m *Monitor) Expect(name string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.within[name] = d
	m.bounds.WithLabelValues(name).Set(d.Seconds())
	m.errs.WithLabelValues(name)
	m.turned(name)
}

// Heartbeat records that the loop has run once without an error.
func (m *Monitor) Heartbeat(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turned(name)
}

func (m *Monitor) turned(name string) {
	m.last[name] = m.now()
	m.turns.WithLabelValues(name).Set(float64(m.last[name].UnixMilli()) / 1e3)
}

// Stale lists the loops that have not turned for longer than they should.
func (m *Monitor) Stale() map[string]time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	stale := map[string]time.Duration{}
	for name, within := range m.within {
		if age := m.now().Sub(m.last[name]); age > within {
			stale[name] = age
		}
	}
	return stale
}

// Config of one loop. RunOnce returns again when there is more to do at once. Rest, which may be
// nil, gives the pause after a turn in the place of Interval, and is never longer. Wake, which
// may be nil, cuts the pause short.
type Config struct {
	Name     string
	Interval time.Duration
	RunOnce  func(context.Context) (again bool, err error)
	Rest     func() time.Duration
	Wake     <-chan struct{}
	Monitor  *Monitor
	Log      *slog.Logger
}

// Run turns until ctx ends. A turn's error or panic is logged and counted, and
// the pause grows with jitter up to 2 seconds while turns go on failing.
func Run(ctx context.Context, c Config) error {
	c.Monitor.Expect(c.Name, c.Interval+15*time.Second)
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 2*time.Second
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.Wake:
		}
		again, err := safely(ctx, c.RunOnce)
		next := c.Interval
		switch {
		case err == nil:
			c.Monitor.Heartbeat(c.Name)
			pause.Reset()
			if failing {
				failing = false
				c.Log.InfoContext(ctx, "loop recovered", "loop", c.Name)
			}
			switch {
			case again:
				next = 0
			case c.Rest != nil:
				next = c.Rest()
			}
		case ctx.Err() != nil || errors.Is(err, context.Canceled):
		default:
			failing = true
			c.Monitor.errs.WithLabelValues(c.Name).Inc()
			next = pause.NextBackOff()
			c.Log.ErrorContext(ctx, "loop turn failed", "loop", c.Name, "error", err, "retry_in", next)
		}
		timer.Reset(next)
	}
}

func safely(ctx context.Context, turn func(context.Context) (bool, error)) (again bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return turn(ctx)
}
