package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type instrumented struct {
	Provider
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// Instrument counts and times each call of p. Several providers may share reg;
// any other collision of names in it panics, as prometheus does.
func Instrument(p Provider, reg prometheus.Registerer) Provider {
	i := &instrumented{
		Provider: p,
		calls: registered(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_provider_calls_total",
			Help: "Calls to the payment provider by what is known after them.",
		}, []string{"provider", "call", "operation", "outcome"})),
		seconds: registered(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "payments_provider_call_seconds",
			Help:    "Time that a call to the payment provider took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 2.5, 5, 10},
		}, []string{"call", "operation"})),
	}
	// Each series begins at 0, so that the first unknown outcome shows in rate().
	for _, op := range []OperationType{Authorization, Capture, Void, Refund} {
		for _, o := range []Outcome{Succeeded, Rejected, NotFound, Unknown} {
			if o != NotFound {
				i.calls.WithLabelValues(p.Name(), "execute", string(op), o.String())
			}
			i.calls.WithLabelValues(p.Name(), "lookup", string(op), o.String())
		}
	}
	return i
}

func registered[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	err := reg.Register(c)
	if err == nil {
		return c
	}
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing
		}
	}
	panic(fmt.Errorf("register the provider's metrics: %w", err))
}

func (i *instrumented) Execute(ctx context.Context, op Operation) Result {
	return i.observe("execute", op, func() Result { return i.Provider.Execute(ctx, op) })
}

func (i *instrumented) Lookup(ctx context.Context, op Operation) Result {
	return i.observe("lookup", op, func() Result { return i.Provider.Lookup(ctx, op) })
}

func (i *instrumented) observe(call string, op Operation, do func() Result) Result {
	began := time.Now()
	r := do()
	i.seconds.WithLabelValues(call, string(op.Type)).Observe(time.Since(began).Seconds())
	i.calls.WithLabelValues(i.Name(), call, string(op.Type), r.Outcome.String()).Inc()
	return r
}
