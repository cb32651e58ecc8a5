package api

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/payment"
	"payments/internal/telemetry"
)

// logging gives the world a server with a log of its own, as the service writes it.
func (w *world) logging(level slog.Level) *logbook {
	w.t.Helper()
	log := &logbook{}
	w.api.Log, w.api.Registerer = telemetry.NewLogger(log, level, "json"), prometheus.NewRegistry()
	w.server = w.serve(w.api)
	return log
}

// lines are those of one request, by the message. A line comes after the answer: it is waited for.
func (l *logbook) lines(t *testing.T, requestID string) map[string]map[string]any {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		found := map[string]map[string]any{}
		for line := range strings.Lines(l.String()) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			if fields["request_id"] == requestID {
				found[fields["msg"].(string)] = fields
			}
		}
		if found["request"] != nil {
			return found
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("request %s leads nowhere: %s", requestID, l.String())
		case <-tick.C:
		}
	}
}

func TestARequestIDLeadsToALine(t *testing.T) {
	w := newWorld(t)
	log := w.logging(slog.LevelInfo)
	placed := w.post(w.merchant, good, append(key("k-1"), "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")...)
	id := placed.at(t, "id").(string)
	for what, test := range map[string]struct {
		answer answer
		want   map[string]any
		none   []string
	}{
		"a payment": {placed, map[string]any{
			"level": "INFO", "method": "POST", "route": "/v1/payments", "status": 202.0, "merchant": w.merchantID, "payment": id, "trace_id": "0af7651916cd43dd8448eb211c80319c",
		}, nil},
		"its replay":      {w.post(w.merchant, good, key("k-1")...), map[string]any{"route": "/v1/payments", "status": 202.0, "payment": id}, nil},
		"its cancel":      {w.do("POST", "/v1/payments/"+id+"/cancel", w.merchant, ""), map[string]any{"route": "/v1/payments/{id}/cancel", "status": 202.0, "payment": id}, nil},
		"an operator":     {w.do("GET", "/v1/ops/sagas?state=x", w.operator, ""), map[string]any{"route": "/v1/ops/sagas", "status": 400.0}, []string{"merchant", "payment"}},
		"unauthenticated": {w.do("GET", "/v1/payments/"+id, "", ""), map[string]any{"route": "/v1/payments/{id}", "status": 401.0}, []string{"merchant", "key", "payment"}},
		"no such path":    {w.do("GET", "/nowhere", "", ""), map[string]any{"route": "unmatched", "status": 404.0}, []string{"merchant", "key", "payment"}},
		"no id":           {w.do("GET", "/v1/payments/s3cret", w.merchant, ""), map[string]any{"route": "/v1/payments/{id}", "status": 404.0}, []string{"payment"}},
	} {
		line := log.lines(t, test.answer.header.Get("Request-Id"))["request"]
		for name, want := range test.want {
			if line[name] != want {
				t.Errorf("%s: %s is %v, want %v in %v", what, name, line[name], want, line)
			}
		}
		for _, name := range test.none {
			if line[name] != nil {
				t.Errorf("%s: %s is %v", what, name, line[name])
			}
		}
		if d, err := time.ParseDuration(line["duration"].(string)); err != nil || d <= 0 {
			t.Errorf("%s: a duration of %v", what, line["duration"])
		}
		if k, has := line["key"]; has && !payment.ValidID(payment.PrefixKey, k.(string)) {
			t.Errorf("%s: key %v", what, k)
		}
	}
	for _, secret := range []string{w.merchant[len("sk_test_")+26:], "s3cret", "ada@example.com", "pm_card_visa", "A-1001"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %q: %s", secret, log.String())
		}
	}
}

func TestSuccessfulReadsAreSampled(t *testing.T) {
	w := newWorld(t)
	log := w.logging(slog.LevelInfo)
	count := func() int { return strings.Count(log.String(), `"msg":"request"`) }
	const reads = 2*sampledReads + 1
	for range reads {
		if a := w.do("GET", "/v1/stock", w.merchant, ""); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	last := w.do("GET", "/v1/stock?x=1", w.merchant, "") // is refused, and so logged
	log.lines(t, last.header.Get("Request-Id"))
	if n := count(); n != 3+1 {
		t.Errorf("%d lines of %d reads and a refusal", n, reads)
	}
	if !strings.Contains(log.String(), `"one_of":100`) {
		t.Errorf("the log does not say that there were more: %s", log.String())
	}
}

// A stream's line comes when the stream ends.
func TestAStreamHasItsLine(t *testing.T) {
	w := newWorld(t)
	log := w.logging(slog.LevelInfo)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.URL+"/v1/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.merchant)
	resp, err := w.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 8)); err != nil || strings.Contains(log.String(), `"msg":"request"`) {
		t.Errorf("%v, %s", err, log.String())
	}
	resp.Body.Close()
	if line := log.lines(t, resp.Header.Get("Request-Id"))["request"]; line["status"] != 200.0 || line["merchant"] != w.merchantID {
		t.Errorf("%v", line)
	}
}

func TestDebugShowsDecisions(t *testing.T) {
	w := newWorld(t)
	log := w.logging(slog.LevelDebug)
	first, again := w.post(w.merchant, good, key("k-1")...), w.post(w.merchant, good, key("k-1")...)
	for _, test := range []struct {
		answer answer
		what   string
		want   map[string]any
	}{
		{first, "authorization decided", map[string]any{"role": "merchant", "action": "payments:create", "allowed": true}},
		{first, "idempotency key decided", map[string]any{"replayed": false, "resource": first.at(t, "id")}},
		{again, "idempotency key decided", map[string]any{"replayed": true, "resource": first.at(t, "id")}},
		{w.post(w.operator, good, key("k")...), "authorization decided", map[string]any{"role": "operator", "allowed": false}},
		{w.post(w.merchant, `{"amount": 0}`, key("k")...), "request refused", map[string]any{"code": "validation_failed"}},
		{w.do("GET", "/v1/payments", "", ""), "request refused", map[string]any{"code": "unauthenticated"}},
	} {
		line := log.lines(t, test.answer.header.Get("Request-Id"))[test.what]
		for name, want := range test.want {
			if line[name] != want {
				t.Errorf("%s: %s is %v, want %v in %v", test.what, name, line[name], want, line)
			}
		}
	}
	for range 3 { // each read has its line
		log.lines(t, w.do("GET", "/v1/stock", w.merchant, "").header.Get("Request-Id"))
	}
}
