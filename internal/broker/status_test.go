package broker

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// What a broker or a database has said comes into a span's status on one short line.
func TestASpansStatusIsOneShortLine(t *testing.T) {
	recorded := tracetest.NewInMemoryExporter()
	c := &Client{config: Config{Tracer: trace.NewTracerProvider(trace.WithSyncer(recorded)).Tracer("")}}
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, said := range []string{"refused", "two\nlines\r\x00\x1b[31m", "no UTF-8 \xff\xfe", strings.Repeat("long ü ", 1<<18)} {
		recorded.Reset()
		_, end := c.span(t.Context(), "send", "a topic", oteltrace.SpanKindProducer, 1, func(int) string { return parent })
		end(errors.New(said))
		spans := recorded.GetSpans()
		if len(spans) != 1 {
			t.Fatalf("%d spans", len(spans))
		}
		status := spans[0].Status.Description
		if status == "" || utf8.RuneCountInString(status) > maxStatus || !utf8.ValidString(status) || strings.IndexFunc(status, unicode.IsControl) >= 0 {
			t.Errorf("the status of %.40q is %q", said, status)
		}
	}
}
