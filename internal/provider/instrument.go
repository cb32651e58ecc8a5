package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

type instrumented struct {
	Provider
	tracer  trace.Tracer
	calls   *prometheus.CounterVec
	astray  *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// Instrument counts and times each call of p, and makes it a span of its context's
// trace. Several providers may share reg;
// any other collision of names in it panics, as prometheus does.
func Instrument(p Provider, tracer trace.Tracer, reg prometheus.Registerer) Provider {
	i := &instrumented{
		Provider: p,
		tracer:   tracer,
		calls: registered(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_provider_calls_total",
			Help: "Calls to the payment provider by what is known after them.",
		}, []string{"provider", "call", "operation", "outcome"})),
		astray: registered(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_provider_calls_astray_total",
			Help: "Calls to the payment provider that went to a wrong account or URL, or with a wrong key, by what tells so.",
		}, []string{"provider", "reason"})),
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
	for _, code := range []string{CodeUnknownParent, CodeAccessRefused, CodeOtherAccount} {
		i.astray.WithLabelValues(p.Name(), code)
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
	return i.observe(ctx, "execute", op, i.Provider.Execute)
}

func (i *instrumented) Lookup(ctx context.Context, op Operation) Result {
	return i.observe(ctx, "lookup", op, i.Provider.Lookup)
}

func (i *instrumented) observe(ctx context.Context, call string, op Operation, do func(context.Context, Operation) Result) Result {
	ctx, span := i.tracer.Start(ctx, call+" "+string(op.Type), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("payments.provider", i.Name()), attribute.String("payments.reference", op.Reference)))
	defer span.End()
	began := time.Now()
	r := do(ctx, op)
	span.SetAttributes(attribute.String("payments.outcome", r.Outcome.String()))
	if r.Outcome == Unknown {
		span.SetStatus(codes.Error, "it is not known what came of it")
	}
	i.seconds.WithLabelValues(call, string(op.Type)).Observe(time.Since(began).Seconds())
	i.calls.WithLabelValues(i.Name(), call, string(op.Type), r.Outcome.String()).Inc()
	switch r.Code {
	case CodeUnknownParent, CodeAccessRefused, CodeOtherAccount:
		i.astray.WithLabelValues(i.Name(), r.Code).Inc()
	}
	return r
}
