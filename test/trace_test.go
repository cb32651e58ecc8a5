package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A client's trace goes through everything that its payment sets off: the request
// and the calls to the provider are of it, and the batches that carried the
// events to Kafka and from there to a consumer are linked to it.
func TestATraceCoversThePaymentFromClientToConsumer(t *testing.T) {
	t.Parallel()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	var mu sync.Mutex
	seen := map[string]bool{}
	other := 0
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil {
			http.Error(rw, "no spans", http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, spans := range request.GetResourceSpans() {
			for _, scope := range spans.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					if how := related(s, trace); how != "" {
						seen[s.GetName()+" "+how] = true
					} else {
						other++
					}
				}
			}
		}
	}))
	t.Cleanup(receiver.Close)
	w := newWorld(t, parts{})
	s := w.serve(map[string]string{"PAYMENTS_TRACES_ENDPOINT": receiver.URL + "/v1/traces", "PAYMENTS_TRACES_RATIO": "0"})
	a, err := w.send(t.Context(), http.MethodPost, s.url+"/v1/payments", w.vars["PAYMENTS_API_KEY"], encode(order("traced", "pm_card_visa")),
		map[string]string{"Idempotency-Key": "traced", "Prefer": "wait=30", "Traceparent": "00-" + trace + "-" + parent + "-01"})
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	w.paid(s, "untraced", order("untraced", "pm_card_visa"))
	w.audited()
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{
		"POST /v1/payments in the trace", "execute authorization in the trace", "execute capture in the trace",
		"send payments.events.v1 linked", "process payments.events.v1 linked",
	} {
		if !seen[want] {
			t.Errorf("there is no span %q", want)
		}
	}
	if other > 0 {
		t.Errorf("%d spans are of traces that nobody asked to record", other)
	}
	if t.Failed() {
		var lines []string
		for name := range seen {
			lines = append(lines, name)
		}
		slices.Sort(lines)
		t.Logf("seen:\n%s", strings.Join(lines, "\n"))
	}
}

func related(s *otlp.Span, trace string) string {
	if fmt.Sprintf("%x", s.GetTraceId()) == trace {
		return "in the trace"
	}
	for _, l := range s.GetLinks() {
		if fmt.Sprintf("%x", l.GetTraceId()) == trace {
			return "linked"
		}
	}
	return ""
}
