package api

import (
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"payments/internal/access"
	"payments/internal/payment"
)

var wellFormed = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$`)

func TestTheTraceOfARequestGoesOnInItsSagaAndItsEvents(t *testing.T) {
	w := newWorld(t)
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for name, c := range map[string]struct {
		header string
		goesOn bool
	}{
		"none": {}, "given": {"00-" + trace + "-" + parent + "-01", true}, "a later version": {"cc-" + trace + "-" + parent + "-01-what", true},
		"version ff": {"ff-" + trace + "-" + parent + "-01", false}, "no trace": {"00-" + strings.Repeat("0", 32) + "-" + parent + "-01", false},
		"no parent": {"00-" + trace + "-" + strings.Repeat("0", 16) + "-01", false}, "capitals": {"00-" + strings.ToUpper(trace) + "-" + parent + "-01", false},
		"too long": {"00-" + trace + "-" + parent + "-01-x", false}, "too short": {"00-" + trace + "-" + parent, false}, "noise": {"hello", false},
	} {
		headers := key(strings.ReplaceAll(name, " ", "-"))
		if c.header != "" {
			headers = append(headers, "Traceparent", c.header)
		}
		a := w.post(w.merchant, strings.Replace(good, "A-1001", name, 1), headers...)
		if a.status != 202 {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		var saga, event string
		if err := w.pool.QueryRow(t.Context(), `
			SELECT s.traceparent, outbox_header(o.headers, 'traceparent')
			FROM sagas s JOIN outbox o ON o.key = s.subject WHERE s.subject = $1`, a.at(t, "order.id")).Scan(&saga, &event); err != nil {
			t.Fatal(err)
		}
		parts := wellFormed.FindStringSubmatch(saga)
		if parts == nil || saga != event || parts[2] == parent {
			t.Errorf("%s: the saga has %q, its event %q", name, saga, event)
			continue
		}
		if (parts[1] == trace) != c.goesOn || (parts[3] == "01") != c.goesOn {
			t.Errorf("%s: the trace goes on as %q", name, saga)
		}
	}
}

// A caller without a valid key has no say in what is recorded, whatever its flags are.
func TestAnUnauthenticatedCallersTraceIsNotRecorded(t *testing.T) {
	w := newWorld(t)
	recorded := tracetest.NewInMemoryExporter()
	w.api.Tracer = sdk.NewTracerProvider(sdk.WithSyncer(recorded), sdk.WithSampler(sdk.ParentBased(sdk.NeverSample()))).Tracer("")
	w.api.Registerer = prometheus.NewRegistry()
	w.server = w.serve(w.api)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	flagged := []string{"Traceparent", "00-" + trace + "-00f067aa0ba902b7-01"}
	wrong := access.FormatKey(access.ModeTest, w.ids.New(payment.PrefixKey), [20]byte{1})
	const notification = `{"id":"evt_1"}`
	for what, a := range map[string]answer{
		"no key": w.do("GET", "/v1/payments", "", "", flagged...), "a wrong key": w.do("GET", "/v1/payments", wrong, "", flagged...),
		"a page": w.do("GET", "/docs", "", "", flagged...), "no route": w.do("GET", "/nowhere", "", "", flagged...),
		"no method": w.do("DELETE", "/v1/payments", "", "", flagged...),
		"a signed body": w.do("POST", "/v1/provider/webhooks/simulator", "", notification,
			append([]string{"Provider-Signature", signed(providerSecret, notification)}, flagged...)...),
		"a wrong signature": w.do("POST", "/v1/provider/webhooks/simulator", "", notification,
			append([]string{"Provider-Signature", signed("whsec_wrong", notification)}, flagged...)...),
	} {
		if spans := recorded.GetSpans(); len(spans) != 0 {
			t.Fatalf("%s (%d): %d spans are recorded, %s first", what, a.status, len(spans), spans[0].Name)
		}
	}
	if a := w.do("GET", "/v1/payments", w.merchant, "", flagged...); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	spans := recorded.GetSpans()
	if len(spans) != 1 || spans[0].Name != "GET /v1/payments" || spans[0].SpanContext.TraceID().String() != trace || !spans[0].EndTime.After(spans[0].StartTime) {
		t.Errorf("of a caller that is known: %+v", spans)
	}
}
