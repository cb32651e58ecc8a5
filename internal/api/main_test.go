package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"payments/internal/access"
	"payments/internal/api/contracttest"
	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/loop"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	providerwebhook "payments/internal/provider/webhook"
	"payments/internal/readmodel"
	"payments/internal/report"
	"payments/internal/secret"
	"payments/internal/secret/secrettest"
	"payments/internal/telemetry"
	"payments/internal/webhook"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

const good = `{"amount": 4998, "currency": "EUR", "payment_method": "pm_card_visa",
 "customer": {"reference": "cust-42", "email": "ada@example.com"},
 "order": {"reference": "A-1001", "lines": [{"sku": "TSHIRT-M", "quantity": 2, "unit_amount": 2499}]}}`

const providerSecret = "whsec_of-the-test"

// world is the API on a database of its own, two merchants and an operator.
type world struct {
	t         *testing.T
	pool      *pgxpool.Pool
	owner     string // URL
	ids       payment.Generator
	pepper    *secret.Pepper
	cipher    *secret.Cipher
	methods   *secret.Tokens
	registry  *prometheus.Registry
	api       Config // of server
	server    *httptest.Server
	log       *logbook
	orders    *brittle
	projector *inbox.Inbox

	merchantID, otherID       string
	merchant, other, operator string // API keys
	colleague                 string // another person's operator key
	reader, support, auditor  string
}

// brittle is the real service until a test breaks it.
type brittle struct {
	*order.Service
	stock func() ([]order.StockLevel, error)
}

func (b *brittle) Stock(ctx context.Context, merchantID string, after order.StockLevel, limit int) ([]order.StockLevel, error) {
	if b.stock != nil {
		return b.stock()
	}
	return b.Service.Stock(ctx, merchantID, after, limit)
}

// idle is a provider that is asked about verdicts alone, since no saga worker runs here. It
// agrees with every verdict on the authorization of a payment like good.
type idle struct{ provider.Provider }

func (idle) Name() string { return "idle" }

func (idle) Account(context.Context) (string, error) { return "idle:1", nil }

func (idle) Inspect(_ context.Context, p provider.Payment) (provider.State, error) {
	return provider.State{Reference: p.Reference, Authorizations: []provider.AuthorizationState{
		{ID: p.Authorization, Status: provider.AuthorizationHeld, Amount: 4998, Currency: "EUR"},
	}}, nil
}

func (idle) Lookup(context.Context, provider.Operation) provider.Result {
	return provider.Result{Outcome: provider.NotFound}
}

type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	database := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), database.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := &world{
		t: t, pool: pool, owner: database.OwnerURL, ids: payment.Generator{Now: time.Now, Random: rand.Reader},
		registry: prometheus.NewRegistry(), log: &logbook{},
	}
	var pepper *secret.Pepper
	pepper, w.cipher = secrettest.Keys(t)
	w.methods = order.PaymentMethods(pepper, w.cipher)
	w.pepper = pepper
	w.merchantID, w.otherID = w.ids.New(payment.PrefixMerchant), w.ids.New(payment.PrefixMerchant)
	for _, id := range []string{w.merchantID, w.otherID} {
		if _, err := pool.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, id); err != nil {
			t.Fatal(err)
		}
	}
	key := func(role access.Role, merchantID string) string {
		spec := access.KeySpec{Mode: access.ModeTest, Role: role, MerchantID: merchantID, APIVersion: NewestVersion()}
		if merchantID == "" {
			spec.Holder = "the " + string(role)
		}
		text, k, err := access.NewKey(w.ids, pepper, spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error { return access.InsertKey(t.Context(), tx, k) }); err != nil {
			t.Fatal(err)
		}
		return text
	}
	w.merchant, w.other, w.operator = key(access.RoleMerchant, w.merchantID), key(access.RoleMerchant, w.otherID), key(access.RoleOperator, "")
	colleague, k, err := access.NewKey(w.ids, pepper, access.KeySpec{Mode: access.ModeTest, Role: access.RoleOperator, Holder: "a colleague", APIVersion: NewestVersion()})
	if err == nil {
		err = postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error { return access.InsertKey(t.Context(), tx, k) })
	}
	if err != nil {
		t.Fatal(err)
	}
	w.colleague = colleague
	w.reader, w.support, w.auditor = key(access.RoleMerchantReader, w.merchantID), key(access.RoleSupport, ""), key(access.RoleAuditor, "")
	w.orders = &brittle{Service: order.New(w.config(pool))}
	w.projector, err = readmodel.NewProjector().NewInbox(pool, "payment_view",
		inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	w.api = Config{
		Orders: w.orders, Payments: readmodel.NewQueries(pool), Streams: w.streams(pool, StreamsConfig{}), DeadLetters: inbox.NewDeadLetters(pool, w.projector),
		Authenticator: access.NewAuthenticator(pool, pepper), Authorizer: authorizer(t), Keys: access.NewKeys(pool, pepper, w.ids, slog.New(slog.NewJSONHandler(w.log, nil))),
		ProviderWebhooks: w.receiver(pool), Webhooks: webhook.NewStore(pool, w.ids, w.cipher, webhook.Guard{}), Reports: report.NewQueries(pool),
		Cipher: w.cipher, Methods: w.methods, Cursors: pepper, IDs: w.ids, Tracer: tracer(t), Log: slog.New(slog.NewJSONHandler(w.log, nil)), Registerer: w.registry,
	}
	w.server = w.serve(w.api)
	return w
}

func authorizer(t *testing.T) *access.Authorizer {
	t.Helper()
	a, err := access.NewAuthorizer(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (w *world) receiver(pool *pgxpool.Pool) *providerwebhook.Receiver {
	w.t.Helper()
	reader, err := provider.SimulatorWebhooks([]string{providerSecret}, time.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := providerwebhook.NewReceiver(pool, providerwebhook.Handler{Matters: w.orders.Matters, Handle: w.orders.Notified}, prometheus.NewRegistry(), reader)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) config(pool *pgxpool.Pool) order.Config {
	return order.Config{
		Pool: pool, IDs: w.ids, Cipher: w.cipher, Methods: w.methods, Provider: idle{}, Deadline: time.Hour, CaptureWindow: time.Hour, Horizon: time.Second,
	}
}

// streams are turned, as the service does, until the test ends.
func (w *world) streams(pool *pgxpool.Pool, c StreamsConfig) *Streams {
	w.t.Helper()
	c.Followers, c.Now, c.Registerer = readmodel.NewFollowers(pool), time.Now, prometheus.NewRegistry()
	if c.Keys == nil {
		c.Keys = access.NewAuthenticator(pool, w.pepper)
	}
	s, err := NewStreams(c)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = loop.Run(ctx, loop.Config{
			Name: "streams", Interval: 5 * time.Millisecond, RunOnce: s.RunOnce,
			Monitor: loop.NewMonitor(time.Now, prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
		})
	}()
	w.t.Cleanup(func() {
		stop()
		<-ended
	})
	return s
}

func (w *world) serve(c Config) *httptest.Server {
	w.t.Helper()
	h, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(h, c.Log)
	s.Start()
	w.t.Cleanup(s.Close)
	w.t.Cleanup(c.Streams.Drain)
	return s
}

type answer struct {
	status int
	header http.Header
	body   string
}

// at is a member of the JSON body by dotted path; a number counts in an array.
func (a answer) at(t *testing.T, path string) any {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %d %q", err, a.status, a.body)
	}
	for name := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = in[name]; !ok {
				t.Fatalf("no %s in %s", path, a.body)
			}
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(in) {
				t.Fatalf("no %s in %s", path, a.body)
			}
			v = in[i]
		default:
			t.Fatalf("no %s in %s", path, a.body)
		}
	}
	if n, ok := v.(json.Number); ok {
		return n.String()
	}
	return v
}

// do sends with the key's bearer unless the headers say otherwise; headers are
// name, value, name, value. A body makes the request JSON.
func (w *world) do(method, path, key, body string, headers ...string) answer {
	w.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, reader)
	if err != nil {
		w.t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = nil
		if headers[i+1] != "" {
			r.Header[headers[i]] = []string{headers[i+1]}
		}
	}
	client := http.Client{Transport: w.checked()}
	resp, err := client.Do(r)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// made is a key that the operator has made and the colleague has approved.
func (w *world) made(body string, headers ...string) (id, secret string) {
	w.t.Helper()
	a := w.do("POST", "/v1/ops/keys", w.operator, body, headers...)
	if a.status != 201 || a.at(w.t, "secret") != nil || a.at(w.t, "approved_at") != nil {
		w.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.at(w.t, "id").(string), a.at(w.t, "secret_part").(string) + w.approved(a.at(w.t, "id").(string))
}

// approved gives the second part of the key.
func (w *world) approved(id string) string {
	w.t.Helper()
	a := w.do("POST", "/v1/ops/keys/"+id+"/approve", w.colleague, "")
	if a.status != 200 || a.at(w.t, "approved_at") == nil {
		w.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.at(w.t, "secret_part").(string)
}

// checked holds every answer against the document of its version.
func (w *world) checked() contracttest.Transport {
	w.t.Helper()
	all, err := readDocuments()
	if err != nil {
		w.t.Fatal(err)
	}
	return contracttest.Transport{Versions: all, Base: w.server.Client().Transport, Report: func(err error) { w.t.Error(err) }}
}

func (w *world) post(key, body string, headers ...string) answer {
	w.t.Helper()
	return w.do("POST", "/v1/payments", key, body, headers...)
}

// refused checks a problem document and gives its errors as "pointer code".
func (w *world) refused(what string, a answer, status int, code payment.Code) []string {
	w.t.Helper()
	var p problemDocument
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		w.t.Errorf("%s: no problem document: %d %s %q", what, a.status, a.header.Get("Content-Type"), a.body)
		return nil
	}
	if a.status != status || p.Status != status || p.Code != code || p.Type != "/problems/"+string(code) ||
		p.Title == "" || p.Detail == "" || p.RequestID == "" || p.RequestID != a.header.Get("Request-Id") {
		w.t.Errorf("%s: %d %s, want %d %s", what, a.status, a.body, status, code)
	}
	var all []string
	for _, e := range p.Errors {
		if e.Message == "" {
			w.t.Errorf("%s: no message at %s", what, e.Pointer)
		}
		all = append(all, e.Pointer+" "+e.Code)
	}
	return all
}

// rows counts all that a payment would write.
func (w *world) rows() (n int) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), `
		SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM order_lines) + (SELECT count(*) FROM payments) +
			(SELECT count(*) FROM sagas) + (SELECT count(*) FROM outbox) + (SELECT count(*) FROM idempotency_keys) +
			(SELECT count(*) FROM stock)`).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// published is the outbox, or what it has of one order.
func (w *world) published(orderID string) []inbox.Message {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), `SELECT key, payload, headers FROM outbox WHERE $1 IN ('', key) ORDER BY position`, orderID)
	if err != nil {
		w.t.Fatal(err)
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m inbox.Message, err error) {
		var headers []string
		err = row.Scan(&m.Key, &m.Value, &headers)
		m.Headers = map[string]string{}
		for pair := range slices.Chunk(headers, 2) {
			m.Headers[pair[0]] = pair[1]
		}
		return m, err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return messages
}

// project applies every event of the outbox, as the consumer would.
func (w *world) project(more ...inbox.Message) {
	w.t.Helper()
	if err := w.handle(append(w.published(""), more...)...); err != nil {
		w.t.Fatal(err)
	}
}

// handle applies messages in one transaction.
func (w *world) handle(batch ...inbox.Message) error {
	return postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error { return readmodel.NewProjector().Project(w.t.Context(), tx, batch) })
}

// declined is the order's second event: all that the saga would tell, in one.
func (w *world) declined(placed answer) inbox.Message {
	w.t.Helper()
	orderID, id, at := placed.at(w.t, "order.id").(string), placed.at(w.t, "id").(string), shown(time.Now())
	failure := payment.Failure{Code: "card_declined", Step: "authorize_payment", Message: "The card was declined."}
	err := postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`UPDATE orders SET status = 'failed', sequence = 2, updated_at = $2 WHERE id = $1`, orderID, at)
		b.Queue(`UPDATE payments SET status = 'failed', failure_code = $2, failure_step = $3, failure_message = $4 WHERE id = $1`,
			id, failure.Code, failure.Step, failure.Message)
		return tx.SendBatch(w.t.Context(), &b).Close()
	})
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := json.Marshal(payment.EventData{
		MerchantID: w.merchantID, OrderID: orderID, PaymentID: id, Status: payment.StatusFailed, Failure: &failure,
		Attempts: []payment.AttemptData{{Number: 1, Step: "authorize_payment", Call: "execute", Outcome: "rejected", Code: "card_declined"}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return inbox.Message{Topic: payment.Topic, Key: []byte(orderID), Value: data, Headers: map[string]string{
		"ce_id": w.ids.New(payment.PrefixEvent), "ce_type": string(payment.EventOrderFailed), "ce_sequence": "2",
		"ce_time": at.Format(time.RFC3339Nano),
	}}
}

// tracer sends nothing, and keeps the flags that callers give.
func tracer(t *testing.T) trace.Tracer {
	t.Helper()
	traces, err := telemetry.NewTraces(t.Context(), telemetry.TraceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return traces.Tracer()
}
