package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/access"
	"payments/internal/inbox"
	"payments/internal/loop"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/readmodel"
	"payments/internal/report"
	"payments/internal/secret/secrettest"
	"payments/internal/webhook"
)

func TestRequestID(t *testing.T) {
	w := newWorld(t)
	for given, kept := range map[string]bool{
		"": false, "abc-123": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "a b": false, "é": false, "~!": true,
	} {
		a := w.do("GET", "/v1/payments", w.merchant, "", "Request-Id", given)
		got := a.header.Get("Request-Id")
		if kept && got != given || !kept && !payment.ValidID(payment.PrefixRequest, got) {
			t.Errorf("given %q, got %q", given, got)
		}
	}
}

func TestAnUnknownErrorIsLoggedOnceAndNotShown(t *testing.T) {
	w := newWorld(t)
	w.orders.stock = func() ([]order.StockLevel, error) { return nil, errors.New("s3cret detail") }
	a := w.do("GET", "/v1/stock", w.operator, "", "Request-Id", "trace-me")
	w.refused("unknown error", a, 500, payment.CodeInternal)
	log := w.log.String()
	if strings.Contains(a.body, "s3cret") || strings.Count(log, "s3cret detail") != 1 || !strings.Contains(log, `"request_id":"trace-me"`) {
		t.Errorf("answer %s, log %s", a.body, log)
	}
	w.orders.stock = func() ([]order.StockLevel, error) { return nil, payment.Errorf("of_no_contract", "s3cret") }
	w.refused("a code outside of the contract", w.do("GET", "/v1/stock", w.operator, ""), 500, payment.CodeInternal)
	w.orders.stock = func() ([]order.StockLevel, error) { panic("s3cret") }
	a = w.do("GET", "/v1/stock", w.operator, "")
	w.refused("panic", a, 500, payment.CodeInternal)
	if strings.Contains(a.body, "s3cret") || !strings.Contains(w.log.String(), "handler panicked") {
		t.Errorf("answer %s", a.body)
	}
}

func TestADeadDatabaseIs503(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port where nobody is
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dead, err := postgres.Open(t.Context(), "postgres://u:p@"+address+"/x?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	pepper, _ := secrettest.Keys(t)
	w.server = w.serve(Config{
		Orders: order.New(w.config(dead)), Payments: readmodel.NewQueries(dead), Streams: w.api.Streams, DeadLetters: inbox.NewDeadLetters(dead),
		Authenticator: access.NewAuthenticator(dead, pepper), Authorizer: authorizer(t), Keys: access.NewKeys(dead, pepper, w.ids, slog.New(slog.DiscardHandler)), Cursors: pepper,
		ProviderWebhooks: w.receiver(dead), Webhooks: webhook.NewStore(dead, w.ids, w.cipher, webhook.Guard{}), Reports: report.NewQueries(dead),
		Cipher: w.cipher, Methods: w.methods, IDs: w.ids, Tracer: tracer(t), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	const notification = `{"id":"evt_1"}`
	for _, a := range []answer{
		w.post(w.merchant, good, key("k")...), w.do("GET", "/v1/payments", w.merchant, ""), w.do("GET", "/v1/webhook_endpoints", w.merchant, ""),
		// For a provider delivers again what was not answered 2xx.
		w.do("POST", "/v1/provider/webhooks/simulator", "", notification, "Provider-Signature", signed(providerSecret, notification)),
	} {
		w.refused("dead database", a, 503, payment.CodeServiceUnavailable)
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("headers %v", a.header)
		}
	}
}

func TestAnOutcomeThatCannotBeReadDoesNotTakeAPaymentBack(t *testing.T) {
	s := &server{Config: Config{Orders: failing{}, Log: slog.New(slog.DiscardHandler), Closing: t.Context()}, slots: testSlots(t, HeldLimits{})}
	if _, ok := s.outcome(t.Context(), &call{w: &recorder{ResponseWriter: httptest.NewRecorder()}, wait: time.Second}, "mer_1", "pay_1", payment.Status.Settled, false); ok {
		t.Error("an outcome out of nothing")
	}
}

type failing struct{ Orders }

func (failing) WaitFor(context.Context, string, string, time.Duration, func(payment.Status) bool) (order.Payment, bool, error) {
	return order.Payment{}, false, errors.New("gone")
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	w.do("GET", "/v1/payments", w.merchant, "")
	w.do("GET", "/v1/payments/pay_1", w.merchant, "")
	w.do("GET", "/v1/payments/pay_2", w.merchant, "")
	w.do("GET", "/s3cret", "", "")
	w.do("BREW", "/v1/stock", "", "")
	const want = `
		# HELP payments_http_requests_total Requests answered, by method, pattern of the route, and status.
		# TYPE payments_http_requests_total counter
		payments_http_requests_total{method="GET",route="/v1/payments",status="200"} 1
		payments_http_requests_total{method="GET",route="/v1/payments/{id}",status="404"} 2
		payments_http_requests_total{method="GET",route="unmatched",status="404"} 1
		payments_http_requests_total{method="other",route="unmatched",status="405"} 1
	`
	if err := testutil.GatherAndCompare(w.registry, strings.NewReader(want), "payments_http_requests_total"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(w.registry, "payments_http_request_seconds"); n != 4 {
		t.Errorf("%d series of payments_http_request_seconds, want 4", n)
	}
}

func TestStock(t *testing.T) {
	w := newWorld(t)
	item := func(merchant, sku, onHand string) string {
		return `{"merchant":"` + merchant + `","sku":"` + sku + `","on_hand":` + onHand + `}`
	}
	for _, body := range []string{
		item(w.merchantID, "A", "5"),
		"[" + item(w.merchantID, "B", "0") + "," + item(w.otherID, "A", "7") + "]",
		`{"data":[` + item(w.merchantID, "A", "6") + `]}`,
	} {
		if a := w.do("PUT", "/v1/stock", w.operator, body); a.status != 200 || a.at(t, "object") != "list" {
			t.Fatalf("put: %d %s", a.status, a.body)
		}
	}
	level := func(merchant, sku, onHand string) string {
		return strings.TrimSuffix(item(merchant, sku, onHand), "}") + `,"reserved":0,"sold":0}`
	}
	list := func(items ...string) string {
		return `{"object":"list","data":[` + strings.Join(items, ",") + `],"has_more":false,"next_cursor":null}`
	}
	own := list(level(w.merchantID, "A", "6"), level(w.merchantID, "B", "0"))
	for _, test := range []struct{ path, key, want string }{
		{"/v1/stock", w.merchant, own}, {"/v1/stock?merchant=" + w.merchantID, w.merchant, own}, {"/v1/stock?merchant=" + w.merchantID, w.operator, own},
		{"/v1/stock", w.other, list(level(w.otherID, "A", "7"))},
	} {
		if a := w.do("GET", test.path, test.key, ""); a.status != 200 || a.body != test.want {
			t.Errorf("%s: %d %s, want %s", test.path, a.status, a.body, test.want)
		}
	}
	if a := w.do("GET", "/v1/stock", w.operator, ""); strings.Count(a.body, `"merchant"`) != 3 {
		t.Errorf("all: %s", a.body)
	}
	before := w.do("GET", "/v1/stock", w.operator, "").body
	for body, want := range map[string]string{
		`{}`:                           "/merchant missing,/sku missing,/on_hand missing",
		`[]`:                           " out_of_range",
		`{"data":[]}`:                  "/data out_of_range",
		item(w.merchantID, "A", "-1"):  "/on_hand out_of_range",
		item(w.merchantID, "A", "1.5"): "/on_hand integer_invalid",
		item("mer_s3cret", "A", "1"):   "/merchant id_invalid",
		`[` + item(w.merchantID, "A", "1") + `,` + item(w.merchantID, "s3cret\u200b", "1") + `]`: "/1/sku sku_invalid",
		`{"data":[` + item(w.merchantID, "A", "1") + `,{"sku":"A","on_hand":1}]}`:                "/data/1/merchant missing",
		`[` + item(w.merchantID, "A", "1") + `,` + item(w.merchantID, "A", "2") + `]`:            "/1 item_duplicate",
		`{"sku":"A","data":[` + item(w.merchantID, "A", "1") + `]}`:                              "/data member_unknown",
		`[` + strings.Replace(item(w.merchantID, "A", "1"), "on_hand", "reserved", 1) + `]`:      "/0/reserved member_unknown",
		`[` + strings.Repeat(`{},`, 1000) + `{}]`:                                                " out_of_range",
		`{"data":7}`: "/data type_invalid",
		`7`:          " type_invalid",
	} {
		a := w.do("PUT", "/v1/stock", w.operator, body)
		if got := strings.Join(w.refused(body, a, 400, payment.CodeInvalid), ","); got != want || strings.Contains(a.body, "s3cret") {
			t.Errorf("%.80s: %s, want %s", body, a.body, want)
		}
	}
	w.refused("no such merchant", w.do("PUT", "/v1/stock", w.operator, item(w.ids.New(payment.PrefixMerchant), "A", "1")), 404, payment.CodeNotFound)
	if after := w.do("GET", "/v1/stock", w.operator, "").body; after != before {
		t.Errorf("refused bodies changed the stock: %s", after)
	}
}

func TestAdmin(t *testing.T) {
	now := time.Now()
	registry := prometheus.NewRegistry()
	monitor := loop.NewMonitor(func() time.Time { return now }, registry)
	monitor.Expect("relay", 15*time.Second)
	var down error
	config := AdminConfig{
		Gatherer: registry, Monitor: monitor, Database: func(context.Context) error { return down }, Loops: true, Log: slog.New(slog.DiscardHandler),
	}
	admin := httptest.NewServer(NewAdmin(config))
	defer admin.Close()
	config.Loops = false
	ofAPI := httptest.NewServer(NewAdmin(config))
	defer ofAPI.Close()
	from := func(s *httptest.Server, path string) (int, string) {
		t.Helper()
		resp, err := s.Client().Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	get := func(path string) (int, string) {
		t.Helper()
		return from(admin, path)
	}
	if status, body := get("/readyz"); status != 200 || body != `{"status":"ready"}` {
		t.Errorf("ready: %d %s", status, body)
	}
	now = now.Add(20 * time.Second)
	if status, body := from(ofAPI, "/readyz"); status != 200 || body != `{"status":"ready","degraded":["The loop relay has not turned for 20s."]}` {
		t.Errorf("a dead loop in a process with the role api: %d %s", status, body)
	}
	down = errors.New("password s3cret refused")
	if status, body := from(ofAPI, "/readyz"); status != 503 || !strings.Contains(body, `"reasons":["The database does not answer, or takes no writes."]`) {
		t.Errorf("no database in a process with the role api: %d %s", status, body)
	}
	status, body := get("/readyz")
	var h health
	if err := json.Unmarshal([]byte(body), &h); err != nil || status != 503 || len(h.Reasons) != 2 ||
		h.Reasons[0] != "The loop relay has not turned for 20s." || strings.Contains(body, "s3cret") {
		t.Errorf("not ready: %d %s", status, body)
	}
	if status, body := get("/healthz"); status != 200 || body != `{"status":"alive"}` {
		t.Errorf("alive: %d %s", status, body)
	}
	monitor.Heartbeat("relay")
	if status, body := get("/metrics"); status != 200 || !strings.Contains(body, `payments_loop_last_turn_timestamp_seconds{loop="relay"}`) {
		t.Errorf("metrics: %d %s", status, body)
	}
	if status, _ := get("/debug/pprof/cmdline"); status != 200 {
		t.Errorf("pprof: %d", status)
	}
}
