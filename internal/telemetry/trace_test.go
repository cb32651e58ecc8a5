package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

func traces(t *testing.T, c TraceConfig) *Traces {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	made, err := NewTraces(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestEveryRequestHasATraceThoughNoneIsSent(t *testing.T) {
	made := traces(t, TraceConfig{Ratio: 1})
	ctx, span := made.Tracer().Start(t.Context(), "a request")
	span.End()
	if c := trace.SpanContextFromContext(ctx); !c.IsValid() || c.IsSampled() {
		t.Errorf("the span is %+v, want one with ids that is not recorded", c)
	}
	if made.Recorder() != nil {
		t.Error("there is a recorder, and nowhere to send to")
	}
}

func TestABatchIsRecordedWhenSomethingInItIs(t *testing.T) {
	made := traces(t, TraceConfig{})
	for name, flags := range map[string]trace.TraceFlags{"recorded": trace.FlagsSampled, "not recorded": 0} {
		link := trace.Link{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true,
		})}
		_, span := made.Tracer().Start(t.Context(), "a batch", trace.WithNewRoot(), trace.WithLinks(link))
		if got := span.SpanContext().IsSampled(); got != link.SpanContext.IsSampled() {
			t.Errorf("linked to what is %s, the batch has %v", name, got)
		}
		span.End()
	}
}

func TestWhatCannotBeSentIsToldAndHoldsNobodyUp(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusBadRequest)
	}))
	defer refusing.Close()
	var log bytes.Buffer
	made := traces(t, TraceConfig{Endpoint: refusing.URL, Ratio: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, span := made.Tracer().Start(t.Context(), "a request")
	span.End()
	ended, cancel := context.WithCancel(t.Context())
	cancel() // as the service's is by then
	err := made.Close(ended)
	if err == nil && !strings.Contains(log.String(), "traces not sent") {
		t.Errorf("nobody is told; the log has %q", log.String())
	}
}
