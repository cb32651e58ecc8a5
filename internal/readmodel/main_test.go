package readmodel

import (
	"crypto/rand"
	"encoding/json"
	"iter"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

// world is a read model, the consumer that fills it, and a clock for new payments.
type world struct {
	t       testing.TB
	pool    *pgxpool.Pool
	inbox   *inbox.Inbox
	queries *Queries
	clock   time.Time
	ids     payment.Generator
	offset  int64
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	pool, err := postgres.Open(tb.Context(), devtest.Database(tb).URL)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	in, err := NewProjector().NewInbox(pool, "payment_view",
		inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{t: tb, pool: pool, inbox: in, queries: NewQueries(pool), clock: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.ids = payment.Generator{Now: func() time.Time { return w.clock }, Random: rand.Reader}
	return w
}

// life is an order whose events a test writes.
type life struct {
	w        *world
	ids      payment.EventData
	sequence int64
}

func (w *world) order(merchantID string) *life {
	return &life{w: w, ids: payment.EventData{
		MerchantID: merchantID, OrderID: w.ids.New(payment.PrefixOrder), PaymentID: w.ids.New(payment.PrefixPayment),
	}}
}

func (w *world) merchant() string { return w.ids.New(payment.PrefixMerchant) }

// event is the order's next, a second after the last.
func (l *life) event(kind payment.EventType, status payment.Status, with func(*payment.EventData)) inbox.Message {
	l.w.t.Helper()
	data := l.ids
	data.Status = status
	if with != nil {
		with(&data)
	}
	value, err := json.Marshal(data)
	if err != nil {
		l.w.t.Fatal(err)
	}
	l.sequence++
	l.w.offset++
	l.w.clock = l.w.clock.Add(time.Second)
	return inbox.Message{
		Topic: payment.Topic, Offset: l.w.offset, Key: []byte(data.OrderID), Value: value,
		Headers: map[string]string{
			"ce_id": l.w.ids.New(payment.PrefixEvent), "ce_type": string(kind),
			"ce_sequence": strconv.FormatInt(l.sequence, 10), "ce_time": l.w.clock.Format(time.RFC3339Nano),
		},
	}
}

func (l *life) placed(change ...func(*payment.PlacedData)) inbox.Message {
	l.w.t.Helper()
	p := &payment.PlacedData{
		Amount: 4998, Currency: "EUR", PaymentMethod: "pm_card_visa",
		Customer:  payment.Customer{Reference: "cust-42", EmailCiphertext: []byte("sealed")},
		Reference: "A-1001",
		Lines:     []payment.LineData{{SKU: "TSHIRT-M", Quantity: 2, UnitAmount: 2499}},
	}
	for _, c := range change {
		c(p)
	}
	return l.event(payment.EventOrderPlaced, payment.StatusProcessing, func(d *payment.EventData) { d.Placed = p })
}

func attempt(number int, step, outcome string) func(*payment.EventData) {
	at := time.Date(2026, 3, 1, 12, 0, number, 0, time.UTC)
	return func(d *payment.EventData) {
		d.Attempts = append(d.Attempts, payment.AttemptData{
			Number: number, Step: step, Call: "execute", Outcome: outcome, StartedAt: at, FinishedAt: at.Add(time.Second),
		})
	}
}

// succeeded is every event of an order that is won.
func (l *life) succeeded() []inbox.Message {
	l.w.t.Helper()
	return []inbox.Message{
		l.placed(),
		l.event(payment.EventStockReserved, payment.StatusProcessing, attempt(1, "reserve_stock", "succeeded")),
		l.event(payment.EventPaymentAuthorized, payment.StatusProcessing, func(d *payment.EventData) {
			d.Authorization = &payment.AuthorizationData{Provider: "simulator", Operation: "op_1", Amount: 4998}
			attempt(2, "authorize_payment", "unknown")(d)
			attempt(3, "authorize_payment", "succeeded")(d)
		}),
		l.event(payment.EventPaymentCaptured, payment.StatusProcessing, func(d *payment.EventData) {
			d.Captured = &payment.CapturedData{Provider: "simulator", Operation: "op_2", Amount: 4998}
		}),
		l.event(payment.EventOrderConfirmed, payment.StatusSucceeded, nil),
	}
}

// failed is every event of an order whose card is declined.
func (l *life) failed() []inbox.Message {
	l.w.t.Helper()
	why := func(d *payment.EventData) {
		d.Failure = &payment.Failure{Code: "card_declined", Step: "authorize_payment", Message: "The card was declined."}
	}
	return []inbox.Message{
		l.placed(),
		l.event(payment.EventStockReserved, payment.StatusProcessing, nil),
		l.event(payment.EventPaymentDeclined, payment.StatusProcessing, why),
		l.event(payment.EventStockReleased, payment.StatusProcessing, nil),
		l.event(payment.EventOrderFailed, payment.StatusFailed, why),
	}
}

// runs are the longest parts in the order of their offsets, as a log has them.
func runs(batch []inbox.Message) iter.Seq[[]inbox.Message] {
	return func(yield func([]inbox.Message) bool) {
		for len(batch) > 0 {
			n := 1
			for n < len(batch) && batch[n].Offset > batch[n-1].Offset {
				n++
			}
			if !yield(batch[:n]) {
				return
			}
			batch = batch[n:]
		}
	}
}

func (w *world) apply(batch ...inbox.Message) {
	w.t.Helper()
	// A topic put together by a test has gaps, and is not in order.
	for part := range runs(batch) {
		if n, err := w.inbox.Apply(w.t.Context(), 1, part); err != nil || n != len(part) {
			w.t.Fatalf("apply: %d of %d: %v", n, len(part), err)
		}
	}
}

// contents is everything that a rebuild of the read model makes, as text.
func (w *world) contents() []string {
	w.t.Helper()
	var all []string
	if err := w.pool.QueryRow(w.t.Context(), `
		SELECT array_agg(line ORDER BY line) FROM (
			SELECT v::text AS line FROM payment_view v UNION ALL SELECT (to_jsonb(t) - 'fed')::text FROM payment_timeline t
			UNION ALL SELECT r::text FROM refund_view r) l`).Scan(&all); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// deadLetters are the reasons, in order of arrival.
func (w *world) deadLetters() []string {
	w.t.Helper()
	var all []string
	if err := w.pool.QueryRow(w.t.Context(), `
		SELECT coalesce(array_agg(reason ORDER BY "offset"), '{}') FROM inbox_parked`).Scan(&all); err != nil {
		w.t.Fatal(err)
	}
	return all
}

func (w *world) get(l *life) Payment {
	w.t.Helper()
	p, err := w.queries.Get(w.t.Context(), operator(w.t), l.ids.PaymentID)
	if err != nil {
		w.t.Fatalf("get: %v", err)
	}
	return p
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func scope(tb testing.TB, p access.Principal) access.Scope {
	tb.Helper()
	a, err := access.NewAuthorizer(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	d, err := a.Authorize(tb.Context(), p, access.PaymentsRead)
	if err != nil {
		tb.Fatal(err)
	}
	return d.Scope
}

func merchant(tb testing.TB, id string) access.Scope {
	tb.Helper()
	return scope(tb, access.Principal{KeyID: "key_1", MerchantID: id, Role: access.RoleMerchant})
}

func operator(tb testing.TB) access.Scope {
	tb.Helper()
	return scope(tb, access.Principal{KeyID: "key_2", Role: access.RoleOperator})
}
