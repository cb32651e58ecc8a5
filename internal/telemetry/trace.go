package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	scope         = "payments"
	exportTimeout = 5 * time.Second
)

// TraceConfig says where traces go.
type TraceConfig struct {
	// Endpoint takes OTLP over HTTP, as http://collector:4318/v1/traces. Empty: nothing
	// is sent, but every request still has a trace id, and goes on with its caller's.
	Endpoint string
	// Ratio of the traces that begin here and are recorded, 0 to 1. Of a trace that
	// began elsewhere the caller's sampled flag decides.
	Ratio   float64
	Version string
	Log     *slog.Logger
}

// Traces hands spans on. Trace ids are of the W3C's Trace Context.
type Traces struct {
	*sdk.TracerProvider
	sends bool
}

// NewTraces connects to nothing before there is a span to send. What cannot be sent
// is logged and lost, and holds nobody up.
func NewTraces(ctx context.Context, c TraceConfig) (*Traces, error) {
	ratio := c.Ratio
	if c.Endpoint == "" {
		ratio = 0
	}
	options := []sdk.TracerProviderOption{
		sdk.WithSampler(linked{sdk.ParentBased(sdk.TraceIDRatioBased(ratio))}),
		sdk.WithResource(resource.NewSchemaless(semconv.ServiceName("payments"), semconv.ServiceVersion(c.Version))),
	}
	if c.Endpoint != "" {
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.Endpoint), otlptracehttp.WithTimeout(exportTimeout))
		if err != nil {
			return nil, fmt.Errorf("send traces: %w", err)
		}
		options = append(options, sdk.WithBatcher(exporter))
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { c.Log.WarnContext(ctx, "traces not sent", "error", err) }))
	}
	return &Traces{sdk.NewTracerProvider(options...), c.Endpoint != ""}, nil
}

// Tracer makes the spans of the service.
func (t *Traces) Tracer() trace.Tracer { return t.TracerProvider.Tracer(scope) }

// Recorder is Tracer where spans are sent somewhere, and nil where they are not: for
// those whose spans carry no trace on.
func (t *Traces) Recorder() trace.Tracer {
	if !t.sends {
		return nil
	}
	return t.Tracer()
}

// Close sends what is not sent yet, for a few seconds at most.
func (t *Traces) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportTimeout)
	defer cancel()
	if err := t.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}

// linked records a span that is linked to one that is recorded: a batch has no
// parent, and is part of the story of everything that it carries.
type linked struct{ sdk.Sampler }

func (l linked) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	for _, link := range p.Links {
		if link.SpanContext.IsSampled() {
			return sdk.AlwaysSample().ShouldSample(p)
		}
	}
	return l.Sampler.ShouldSample(p)
}
