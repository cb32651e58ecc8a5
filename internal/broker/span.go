package broker

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"payments/internal/text"
)

const headerTrace = "traceparent"

// maxStatus is the length of a span's status, which holds what a broker or a database has said.
const maxStatus = 200

// maxLinks of a span is what OpenTelemetry's SDK keeps by default.
const maxLinks = 128

// span is that of a batch. It has no parent, since a batch carries messages of many
// traces: it is linked to them (OpenTelemetry's semantic conventions for messaging),
// or to the first of them. A batch without a recorded trace has none.
func (c *Client) span(ctx context.Context, what, topic string, kind trace.SpanKind, n int, traceparent func(int) string, more ...attribute.KeyValue) (context.Context, func(error)) {
	if c.config.Tracer == nil {
		return ctx, func(error) {}
	}
	var links []trace.Link
	for i := 0; i < n && len(links) < maxLinks; i++ {
		of := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{headerTrace: traceparent(i)}) //nolint:forbidigo // nothing is done with it
		if at := trace.SpanContextFromContext(of); at.IsSampled() {
			links = append(links, trace.Link{SpanContext: at})
		}
	}
	if len(links) == 0 {
		return ctx, func(error) {}
	}
	ctx, span := c.config.Tracer.Start(ctx, what+" "+topic, //nolint:spancheck // the caller ends it
		trace.WithNewRoot(), trace.WithLinks(links...), trace.WithSpanKind(kind),
		trace.WithAttributes(append(more, attribute.String("messaging.system", "kafka"), attribute.String("messaging.operation.name", what),
			attribute.String("messaging.destination.name", topic), attribute.Int("messaging.batch.message_count", n))...))
	return ctx, func(err error) { //nolint:spancheck // see above
		if err != nil {
			span.SetStatus(codes.Error, text.Line(err.Error(), maxStatus))
		}
		span.End()
	}
}
