package report

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

// world is a database with generated payments; pool is the service's, owner's the rest.
type world struct {
	t       *testing.T
	db      devtest.URLs
	pool    *pgxpool.Pool
	owner   *pgx.Conn
	queries *Queries
	all     access.Scope
	without string // statements of the generation that begin so are left out
}

// The world's days: from the first of 2026 on.
var (
	firstDay = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	lastDay  = firstDay.AddDate(0, 0, 100)
)

func newWorld(t *testing.T, payments int) *world {
	t.Helper()
	w := &world{t: t, db: devtest.Database(t)}
	w.pool = w.open()
	w.owner = w.connect()
	w.queries = NewQueries(w.pool)
	w.all = w.scope("")
	if payments > 0 {
		w.generate(payments, 100)
	}
	return w
}

func (w *world) open() *pgxpool.Pool {
	w.t.Helper()
	pool, err := postgres.Open(w.t.Context(), w.db.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(pool.Close)
	return pool
}

func (w *world) connect() *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.db.OwnerURL)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(w.t.Context())) })
	return conn
}

// scope of a merchant, or of an operator.
func (w *world) scope(merchantID string) access.Scope {
	w.t.Helper()
	a, err := access.NewAuthorizer(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		w.t.Fatal(err)
	}
	p := access.Principal{KeyID: "key_1", Role: access.RoleOperator}
	if merchantID != "" {
		p = access.Principal{KeyID: "key_1", Role: access.RoleMerchant, MerchantID: merchantID}
	}
	d, err := a.Authorize(w.t.Context(), p, access.ReportsRead)
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Scope
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.owner.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%v: %s", err, sql)
	}
}

// refresher on a pool of its own, as of a process of its own.
func (w *world) refresher(c RefresherConfig) *Refresher {
	w.t.Helper()
	c.Registerer, c.Log = prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	r, err := NewRefresher(w.open(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// refresh asks for a refresh and makes it.
func (w *world) refresh() {
	w.t.Helper()
	if _, err := w.queries.Request(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.refresher(RefresherConfig{}).RunOnce(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) state() State {
	w.t.Helper()
	s, err := w.queries.State(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func query(k Kind, groupBy ...string) Query {
	return Query{Kind: k, From: firstDay, To: lastDay, GroupBy: groupBy, Top: DefaultTop}
}

// generate makes payments of 50 merchants, unevenly, over days, by one seed: the same
// number gives the same world. Most succeed; the others fail in each way there is.
func (w *world) generate(payments, days int) {
	w.t.Helper()
	for _, sql := range generation {
		if w.without != "" && strings.Contains(sql.text, w.without) {
			continue
		}
		args := []any{}
		if sql.takes {
			args = []any{payments, firstDay, time.Duration(days) * 24 * time.Hour / time.Duration(payments)}
		}
		w.exec(sql.text, args...)
	}
}

var generation = []struct {
	text  string
	takes bool
}{
	{text: `INSERT INTO merchants (id, name) SELECT 'mer_01jqh' || lpad(i::text, 21, '0'), 'Shop ' || i FROM generate_series(1, 50) i`},
	{takes: true, text: `
		CREATE TEMP TABLE made AS
		SELECT n, 'mer_01jqh' || lpad((1 + floor(50 * ((hashint8extended(n, 1) & 65535) / 65536.0) ^ 3))::int::text, 21, '0') COLLATE "C" AS merchant_id,
			'01jqh' || lpad(n::text, 21, '0') COLLATE "C" AS id,
			(ARRAY['EUR', 'EUR', 'EUR', 'EUR', 'EUR', 'EUR', 'EUR', 'USD', 'USD', 'JPY'])[1 + (hashint8extended(n, 2) & 65535) % 10] AS currency,
			'pm_card_' || (ARRAY['visa', 'visa', 'visa', 'mastercard', 'mastercard', 'amex'])[1 + (hashint8extended(n, 3) & 65535) % 6] AS method,
			(hashint8extended(n, 4) & 65535) % 200 AS fate,
			1 + (hashint8extended(n, 5) & 65535) % 2 AS lines,
			(hashint8extended(n, 6) & 65535) % 40 AS sku, 1 + (hashint8extended(n, 7) & 65535) % 3 AS quantity,
			$2::timestamptz + (n - 1) * $3::interval AS created_at
		FROM generate_series(1, $1::bigint) n`},
	{text: `BEGIN`},
	{text: `
		INSERT INTO orders (merchant_id, id, reference, customer_reference, currency, amount, status, sequence, created_at, updated_at)
		SELECT merchant_id, 'ord_' || id, 'R-' || n, 'cust-' || n % 100, currency, lines * quantity * (100 + sku), 
			CASE WHEN fate < 178 THEN 'confirmed' WHEN fate < 198 THEN 'failed' WHEN fate = 198 THEN 'canceled' ELSE 'placed' END, 5, created_at, created_at
		FROM made`},
	{text: `
		INSERT INTO order_lines (merchant_id, order_id, line, sku, quantity, unit_amount)
		SELECT merchant_id, 'ord_' || id, line, 'SKU-' || (sku + line * 7) % 40, quantity, 100 + sku FROM made, generate_series(0, lines - 1) line`},
	{text: `COMMIT`},
	{text: `
		INSERT INTO payments (merchant_id, id, order_id, status, currency, amount, amount_captured, amount_refunded, payment_method, capture_method,
			authorization_reference, failure_code, failure_step, failure_message, created_at)
		SELECT merchant_id, 'pay_' || id, 'ord_' || id,
			CASE WHEN fate < 178 THEN 'succeeded' WHEN fate < 198 THEN 'failed' WHEN fate = 198 THEN 'canceled' ELSE 'processing' END,
			currency, lines * quantity * (100 + sku), CASE WHEN fate < 178 THEN lines * quantity * (100 + sku) ELSE 0 END,
			CASE WHEN fate < 10 THEN 99 ELSE 0 END, method, 'automatic', CASE WHEN fate < 178 OR fate = 195 OR fate = 198 THEN 'op_' || n END,
			CASE WHEN fate BETWEEN 178 AND 188 THEN 'card_declined' WHEN fate BETWEEN 189 AND 194 THEN 'insufficient_funds' WHEN fate = 195 THEN 'capture_declined'
				WHEN fate = 196 THEN 'insufficient_stock' WHEN fate = 197 THEN 'deadline_exceeded' END,
			CASE WHEN fate BETWEEN 178 AND 194 OR fate = 197 THEN 'authorize_payment' WHEN fate = 195 THEN 'capture_payment' WHEN fate = 196 THEN 'reserve_stock' END,
			CASE WHEN fate BETWEEN 178 AND 197 THEN 'The bank said no.' END, created_at
		FROM made`},
	{text: `
		INSERT INTO refunds (merchant_id, id, payment_id, amount, status, failure_code, created_at, updated_at)
		SELECT merchant_id, 'ref_' || id, 'pay_' || id, 99, CASE WHEN fate < 10 THEN 'succeeded' WHEN fate = 10 THEN 'failed' ELSE 'pending' END,
			CASE WHEN fate = 10 THEN 'refused' END, created_at + interval '2 days', created_at + interval '2 days'
		FROM made WHERE fate < 12`},
	{text: `
		INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, abortable, data, due_at, created_at, updated_at)
		SELECT merchant_id, 'sag_' || id, 'payment', 1, 'ord_' || id,
			CASE WHEN fate < 178 THEN 'completed' WHEN fate < 199 THEN 'compensated' ELSE 'running' END, 'confirm_order', false, '{}',
			CASE WHEN fate = 199 THEN created_at END, created_at,
			created_at + make_interval(secs => 0.05 + power((hashint8extended(n, 8) & 65535) / 65536.0, 6) * 60)
		FROM made`},
	{text: `DROP TABLE made`},
	{text: `ANALYZE`},
}
