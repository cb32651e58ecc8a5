package api

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// span begins the request's: of the caller's trace, if it sent one W3C Trace Context
// (Recommendation of 2021-11-23) that can be read, else of a new one. What follows
// from the request, its saga and its events, is of that trace.
func (s *server) span(r *http.Request, pattern string) (context.Context, trace.Span) {
	ctx := r.Context()
	if len(r.Header.Values("Traceparent")) == 1 {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	return s.Tracer.Start(ctx, r.Method+" "+pattern, //nolint:spancheck // see end
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(semconv.HTTPRequestMethodKey.String(r.Method), semconv.HTTPRoute(pattern)))
}

func end(span trace.Span, rec *recorder) {
	span.SetAttributes(semconv.HTTPResponseStatusCode(rec.status))
	if rec.status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
