package order

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// traceparent is that of the request or the call that the context is of, by the W3C's
// Trace Context, or "".
func traceparent(ctx context.Context) string {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c["traceparent"]
}

func withTraceparent(ctx context.Context, traceparent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}
