package webhook

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"payments/internal/access"
	"payments/internal/devstack/devtest"
	"payments/internal/idempotency"
	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

// world is a database with two merchants, the consumer of events, and dispatchers.
type world struct {
	t          *testing.T
	pool       *pgxpool.Pool
	ids        payment.Generator
	cipher     *secret.Cipher
	inbox      *inbox.Inbox
	store      *Store
	guard      Guard
	offset     int64
	merchantID string
	otherID    string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	url := devtest.Database(t).URL // the first starts Postgres
	before := goleak.IgnoreCurrent()
	pool, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		goleak.VerifyNone(t, before)
	})
	w := &world{t: t, pool: pool, ids: payment.Generator{Now: time.Now, Random: rand.Reader}, guard: Guard{AllowPrivate: true}}
	keys, err := secret.NewCipherKeyset()
	if err != nil {
		t.Fatal(err)
	}
	if w.cipher, err = secret.ParseAEAD(keys); err != nil {
		t.Fatal(err)
	}
	w.inbox, err = NewInbox(pool, "webhooks", w.ids, inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	w.store = NewStore(pool, w.ids, w.cipher, w.guard)
	w.merchantID, w.otherID = w.merchant(), w.merchant()
	return w
}

func (w *world) merchant() string {
	w.t.Helper()
	id := w.ids.New(payment.PrefixMerchant)
	w.exec(`INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, id)
	return id
}

func (w *world) exec(sql string, args ...any) int64 {
	w.t.Helper()
	tag, err := w.pool.Exec(w.t.Context(), sql, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return tag.RowsAffected()
}

func value[T any](w *world, sql string, args ...any) (v T) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), sql, args...).Scan(&v); err != nil {
		w.t.Fatal(err)
	}
	return v
}

// dispatcher is one process's.
func (w *world) dispatcher(change ...func(*Config)) *Dispatcher {
	w.t.Helper()
	c := Config{
		Guard: w.guard, Cipher: w.cipher, Owner: rand.Text(), Concurrency: 32, MaxExhausted: 2,
		Now: time.Now, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
	for _, f := range change {
		f(&c)
	}
	d, err := NewDispatcher(w.pool, c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(d.Drain)
	return d
}

// turn makes every due attempt that one claim takes, and waits for its record.
func (w *world) turn(d *Dispatcher) {
	w.t.Helper()
	if _, err := d.RunOnce(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	d.Drain()
}

// pass lets the pause before each pending delivery's next attempt, or its lease, be over.
func (w *world) pass() {
	w.t.Helper()
	w.exec(`UPDATE webhook_deliveries SET due_at = now() WHERE due_at IS NOT NULL`)
}

func (w *world) request(merchantID string) idempotency.Request {
	return idempotency.Request{MerchantID: merchantID, Key: rand.Text(), Fingerprint: [32]byte{1}}
}

func (w *world) endpoint(merchantID, url string, events ...string) Keyed {
	w.t.Helper()
	if len(events) == 0 {
		events = []string{AllEvents}
	}
	draft, err := NewDraft(w.guard, url, events)
	if err != nil {
		w.t.Fatal(err)
	}
	var made Keyed
	_, _, err = w.store.Create(w.t.Context(), w.request(merchantID), draft, func(k Keyed) (idempotency.Response, error) {
		made = k
		return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

func (w *world) rotate(e Keyed, overlap time.Duration) (made Keyed, err error) {
	_, _, err = w.store.Rotate(w.t.Context(), w.request(e.MerchantID), e.ID, overlap, func(k Keyed) (idempotency.Response, error) {
		made = k
		return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
	})
	return made, err
}

// message is the next of the log: an event of a fresh order, unless change says more.
func (w *world) message(merchantID string, kind payment.EventType, sequence int, change ...func(*payment.EventData)) inbox.Message {
	w.t.Helper()
	data := payment.EventData{
		MerchantID: merchantID, OrderID: w.ids.New(payment.PrefixOrder), PaymentID: w.ids.New(payment.PrefixPayment), Status: payment.StatusProcessing,
	}
	for _, c := range change {
		c(&data)
	}
	body, err := json.Marshal(data)
	if err != nil {
		w.t.Fatal(err)
	}
	w.offset++
	return inbox.Message{Topic: payment.Topic, Offset: w.offset, Key: []byte(data.OrderID), Value: body, Headers: map[string]string{
		"ce_id": w.ids.New(payment.PrefixEvent), "ce_type": string(kind), "ce_sequence": strconv.Itoa(sequence),
		"ce_time": time.Now().UTC().Format(time.RFC3339Nano),
	}}
}

func (w *world) apply(batch ...inbox.Message) {
	w.t.Helper()
	if n, err := w.inbox.Apply(w.t.Context(), 1, batch); err != nil || n != len(batch) {
		w.t.Fatalf("apply: %d of %d: %v", n, len(batch), err)
	}
}

func (w *world) happens(merchantID string, kind payment.EventType) {
	w.apply(w.message(merchantID, kind, 2))
}

func scope(tb testing.TB, merchantID string) access.Scope {
	tb.Helper()
	p := access.Principal{KeyID: "key_1", MerchantID: merchantID, Role: access.RoleMerchant}
	if merchantID == "" {
		p.Role = access.RoleOperator
	}
	a, err := access.NewAuthorizer(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	d, err := a.Authorize(tb.Context(), p, access.WebhooksRead)
	if err != nil {
		tb.Fatal(err)
	}
	return d.Scope
}

func (w *world) log(e Keyed) []Delivery {
	w.t.Helper()
	page, more, err := w.store.Deliveries(w.t.Context(), scope(w.t, e.MerchantID), e.ID, "", 100)
	if err != nil || more {
		w.t.Fatal(more, err)
	}
	return page
}

func (w *world) get(e Keyed) Endpoint {
	w.t.Helper()
	got, err := w.store.Get(w.t.Context(), scope(w.t, e.MerchantID), e.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// receiver is a merchant's server, which keeps what it got.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []received
	answer func(http.ResponseWriter, *http.Request)
}

type received struct {
	header http.Header
	body   []byte
}

func newReceiver(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.got = append(r.got, received{q.Header.Clone(), body})
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			answer(w, q)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answers(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

func (r received) id() string { return r.header.Get(headerID) }

func counter(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	return testutil.ToFloat64(c)
}

func code(err error) payment.Code {
	if e, ok := errors.AsType[*payment.Error](err); ok {
		return e.Code
	}
	return ""
}
