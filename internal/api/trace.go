package api

import (
	"net/http"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// span makes the request's, which began with the request: of the caller's trace, if the caller is
// known and sent one W3C Trace Context (Recommendation of 2021-11-23) that can be read, else of a new
// one. What follows from the request, its saga and its events, is of that trace. An unauthenticated
// caller's trace is not taken over: its sampled flag would have each of that caller's requests recorded.
func (s *server) span(c *call) trace.Span {
	ctx := c.r.Context()
	if c.principal.KeyID != "" && len(c.r.Header.Values("Traceparent")) == 1 {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(c.r.Header))
	}
	_, span := s.Tracer.Start(ctx, c.r.Method+" "+c.w.route, //nolint:spancheck // see end
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(c.began),
		trace.WithAttributes(semconv.HTTPRequestMethodKey.String(c.r.Method), semconv.HTTPRoute(c.w.route)))
	return span //nolint:spancheck // see end
}

func end(span trace.Span, rec *recorder) {
	rec.trace = span.SpanContext().TraceID()
	span.SetAttributes(semconv.HTTPResponseStatusCode(rec.status))
	if rec.status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
