package order_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"payments/internal/audit"
	"payments/internal/devstack/devtest"
	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/provider/simulator"
	"payments/internal/saga"
	"payments/internal/secret/secrettest"
)

// world is the write model, a worker's surroundings, and the bank.
type world struct {
	t        *testing.T
	pool     *pgxpool.Pool
	orders   *order.Service
	owner    string             // the URL of who owns the tables
	bank     string             // the simulator's URL
	books    provider.Inspector // of a provider that is not the simulator
	merchant string
	ids      payment.Generator
	config   order.Config
	policy   saga.Policy
	crash    func(point, step string) bool
	crashed  atomic.Int64
	registry *prometheus.Registry        // of the newest worker
	hand     atomic.Pointer[saga.Worker] // in which orders begin; nil: none
}

const startStock = 100

var client = &http.Client{Timeout: 10 * time.Second}

const horizon = 400 * time.Millisecond

func newWorld(t *testing.T) *world {
	t.Helper()
	database := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), database.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	sim, err := simulator.Open(filepath.Join(t.TempDir(), "ledger.db"), simulator.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(sim.Handler())
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	bank, err := provider.NewHTTP(server.URL, provider.HTTPConfig{Timeout: 150 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bank.Close)
	pepper, cipher := secrettest.Keys(t)
	pause := func(int) time.Duration { return 20 * time.Millisecond }
	w := &world{
		t: t, pool: pool, owner: database.OwnerURL, bank: server.URL, ids: payment.Generator{Now: time.Now, Random: rand.Reader},
		policy: saga.Policy{Horizon: horizon, KeyLifetime: time.Hour, Backoff: pause, UndoBackoff: pause, Shut: func() time.Duration { return 20 * time.Millisecond }},
	}
	w.config = order.Config{Pool: pool, IDs: w.ids, Cipher: cipher, Methods: order.PaymentMethods(pepper, cipher), Provider: bank, Deadline: time.Hour, CaptureWindow: time.Hour, Horizon: horizon}
	w.config.Worker = w.hand.Load
	w.orders = order.New(w.config)
	w.merchant = w.ids.New(payment.PrefixMerchant)
	if _, err := pool.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, w.merchant); err != nil {
		t.Fatal(err)
	}
	stock, err := payment.NewStock("", w.merchant, "TSHIRT-M", startStock)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.orders.SetStock(t.Context(), []payment.Stock{stock}); err != nil {
		t.Fatal(err)
	}
	return w
}

type draft struct {
	method, reference string
	quantity          int64
	capture           payment.CaptureMethod
	presents          []payment.DraftLine // that cost nothing
}

func (w *world) place(d draft) (string, error) {
	w.t.Helper()
	return w.placeAs(rand.Text(), d)
}

// placeAs is place with an idempotency key.
func (w *world) placeAs(key string, d draft) (string, error) {
	w.t.Helper()
	o, err := payment.NewOrder(payment.Draft{
		Amount: d.quantity * 2499, Currency: "EUR", PaymentMethod: d.method, CustomerReference: "cust-1", CustomerEmail: "ada@example.com",
		OrderReference: d.reference, CaptureMethod: string(d.capture),
		Lines: append([]payment.DraftLine{{SKU: "TSHIRT-M", Quantity: d.quantity, UnitAmount: 2499}}, d.presents...),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	resp, _, err := w.orders.Place(w.t.Context(), idempotency.Request{MerchantID: w.merchant, Key: key}, o,
		func(p order.Placed) (idempotency.Response, error) { return answer(p.PaymentID), nil })
	return resp.ResourceID, err
}

func answer(id string) idempotency.Response {
	return idempotency.Response{ResourceID: id, Status: 202, Header: map[string]string{}, Body: []byte("{}")}
}

// placed is place of an order that is accepted.
func (w *world) placed(method string, capture payment.CaptureMethod, presents ...payment.DraftLine) string {
	w.t.Helper()
	id, err := w.place(draft{method, "A-" + rand.Text()[:8], 2, capture, presents})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) worker(definitions ...saga.Definition) *saga.Worker {
	w.t.Helper()
	return w.workerOf(w.orders, definitions...)
}

// workerOf is a worker of a process that serves orders.
func (w *world) workerOf(orders *order.Service, definitions ...saga.Definition) *saga.Worker {
	w.t.Helper()
	if definitions == nil {
		definitions = orders.Sagas()
	}
	w.registry = prometheus.NewRegistry()
	worker, err := saga.NewWorker(w.pool, saga.Config{
		Definitions: definitions, Owner: rand.Text(), CallTimeout: 250 * time.Millisecond,
		Lease: 3 * time.Second, Concurrency: 32, Open: orders.Open, Prepare: orders.Prepare, Only: orders.Only(), Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Registerer: w.registry, Policy: w.policy, Crash: w.crash,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return worker
}

// settle runs workers, a new one after each crash, until no order and no refund is
// on its way but those that wait for credentials. The leases of a dead worker end at once.
func (w *world) settle() {
	w.t.Helper()
	w.until(`definition <> 'orphan_void' AND waits_for IS NULL AND (NOT awaiting OR signaled OR abort IS NOT NULL)`)
}

// drain is settle, and waits for the searches for late authorizations too.
func (w *world) drain() { w.t.Helper(); w.until(`true`) }

func (w *world) until(which string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	worker, deaths := w.worker(), w.crashed.Load()
	for w.count(`SELECT count(*) FROM sagas WHERE due_at IS NOT NULL AND paused_at IS NULL AND `+which) > 0 {
		if _, err := worker.RunOnce(ctx); err != nil {
			w.t.Fatal(err)
		}
		worker.Drain()
		if n := w.crashed.Load(); n != deaths {
			deaths = n
			worker = w.worker()
			w.exec(`UPDATE sagas SET due_at = now() WHERE owner IS NOT NULL`)
		}
	}
}

// dieOnce lets a worker die the n-th time it comes to the point at the step.
func (w *world) dieOnce(point, step string) {
	var done atomic.Bool
	w.crash = func(p, s string) bool {
		if p != point || s != step || !done.CompareAndSwap(false, true) {
			return false
		}
		w.crashed.Add(1)
		return true
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) count(sql string, args ...any) (n int) {
	w.t.Helper()
	return one[int](w, sql, args...)
}

func one[T any](w *world, sql string, args ...any) (v T) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), sql, args...).Scan(&v); err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) status(paymentID string) string {
	w.t.Helper()
	return one[string](w, `SELECT status FROM payments WHERE id = $1`, paymentID)
}

func (w *world) sagaOf(paymentID string) string {
	w.t.Helper()
	return one[string](w, `SELECT s.id FROM sagas s JOIN payments p ON s.subject = p.order_id WHERE p.id = $1`, paymentID)
}

func (w *world) events(paymentID string) (types []string) {
	w.t.Helper()
	return strings.Fields(one[string](w, `
		SELECT coalesce(string_agg(outbox_header(o.headers, 'ce_type'), ' ' ORDER BY o.sequence), '')
		FROM outbox o JOIN payments p ON p.order_id = o.key WHERE p.id = $1`, paymentID))
}

// fault is the body of the simulator's POST /v1/faults.
func (w *world) fault(body string) {
	w.t.Helper()
	w.request(http.MethodPost, "/v1/faults", body, http.StatusCreated)
}

func (w *world) heal() {
	w.t.Helper()
	w.request(http.MethodDelete, "/v1/faults", "", http.StatusNoContent)
}

func (w *world) request(method, path, body string, want int) []byte {
	w.t.Helper()
	return w.requestWith("", method, path, body, want)
}

func (w *world) requestWith(key, method, path, body string, want int) []byte {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.bank+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var raw json.RawMessage
	if resp.StatusCode != want {
		w.t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
	if want != http.StatusNoContent {
		if err := json.NewDecoder(resp.Body).Decode(&raw); err != nil {
			w.t.Fatal(err)
		}
	}
	return raw
}

// ledger lists what the bank did for the payment, as type:status.
func (w *world) ledger(paymentID string) (operations []string) {
	w.t.Helper()
	var list struct {
		Data []struct{ Type, Status string } `json:"data"`
	}
	if err := json.Unmarshal(w.request(http.MethodGet, "/v1/operations?reference="+paymentID, "", http.StatusOK), &list); err != nil {
		w.t.Fatal(err)
	}
	for _, o := range list.Data {
		operations = append(operations, o.Type+":"+o.Status)
	}
	return operations
}

// schemas are those of docs/events, by type.
var schemas = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	compiled, c := map[string]*jsonschema.Schema{}, jsonschema.NewCompiler()
	c.AssertFormat()
	for _, kind := range payment.EventTypes {
		s, err := c.Compile("../../docs/events/" + string(kind) + ".v1.json")
		if err != nil {
			return nil, err
		}
		compiled[string(kind)] = s
	}
	return compiled, nil
})

// told holds every event that was written to its schema.
func (w *world) told() {
	w.t.Helper()
	known, err := schemas()
	if err != nil {
		w.t.Fatal(err)
	}
	rows, err := w.pool.Query(w.t.Context(), `
		SELECT outbox_header(headers, 'ce_type'), payload FROM outbox`)
	if err != nil {
		w.t.Fatal(err)
	}
	var kind string
	var payload []byte
	if _, err := pgx.ForEachRow(rows, []any{&kind, &payload}, func() error {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
		if err != nil {
			return err
		}
		if err := known[kind].Validate(value); err != nil {
			w.t.Errorf("%s: %v in %s", kind, err, payload)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// audited fails for each violated invariant but those of the pipeline, which does
// not run here.
func (w *world) audited() {
	w.t.Helper()
	w.told()
	w.agree()
	findings, err := w.audit(w.bank).Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range findings {
		if f.Invariant == 6 { // nothing publishes here
			continue
		}
		for _, v := range f.Violations {
			w.t.Errorf("invariant %d, %s: %s", f.Invariant, f.Name, v)
		}
	}
}

// audit compares with the bank at the URL, or with the books of another provider.
func (w *world) audit(bank string) audit.Audit {
	w.t.Helper()
	if w.books != nil {
		return audit.Audit{Write: w.pool, Read: w.pool, Provider: w.books, Pause: 10 * time.Millisecond, Dir: w.t.TempDir()}
	}
	patient, err := provider.NewHTTP(bank, provider.HTTPConfig{Timeout: 10 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(patient.Close)
	return audit.Audit{Write: w.pool, Read: w.pool, Provider: patient, Pause: 10 * time.Millisecond, Dir: w.t.TempDir()}
}

// gaugeValue sums a metric of the newest worker over its labels.
func gaugeValue(t *testing.T, w *world, name string) (sum float64) {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
