package seed_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/audit"
	"payments/internal/devstack/devtest"
	"payments/internal/order"
	"payments/internal/postgres"
	"payments/internal/secret/secrettest"
	"payments/internal/seed"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

func open(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), devtest.Database(t).OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func config(t *testing.T, pool *pgxpool.Pool, payments int) seed.Config {
	t.Helper()
	end := time.Now().AddDate(0, 0, -32)
	return seed.Config{
		Write: pool, Read: pool, Payments: payments, Merchants: 7, Timelines: payments, Begin: end.AddDate(-1, 0, 0), End: end, Seed: 1, Methods: order.PaymentMethods(secrettest.Keys(t)),
	}
}

// bank is what the provider would have done for the payments that are there.
func bank(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT p.id, o.type, 'succeeded', p.currency, o.amount FROM payments p, LATERAL (VALUES
			('authorization', p.amount, p.authorization_reference IS NOT NULL), ('capture', p.amount, p.status = 'succeeded'),
			('void', p.amount, p.status = 'canceled'), ('refund', p.amount_refunded, p.amount_refunded > 0)) o (type, amount, done)
		WHERE o.done`)
	if err != nil {
		t.Fatal(err)
	}
	type operation struct {
		Reference string `json:"reference"`
		Type      string `json:"type"`
		Status    string `json:"status"`
		Currency  string `json:"currency"`
		Amount    int64  `json:"amount"`
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[operation])
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(map[string]any{"data": all})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document) }))
	t.Cleanup(s.Close)
	return s.URL
}

func TestTheAuditPassesOverWhatIsSeeded(t *testing.T) {
	pool := open(t)
	const payments = 3000
	done := 0
	c := config(t, pool, payments)
	c.Done = func(n int) { done = n }
	if err := seed.Run(t.Context(), c); err != nil || done != payments {
		t.Fatalf("%d: %v", done, err)
	}
	findings, err := audit.Audit{Write: pool, Read: pool, Ledger: bank(t, pool), Client: &http.Client{Timeout: time.Minute}, Settled: true}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	looked := map[string]int64{}
	for _, f := range findings {
		looked[f.Name] = f.Counted
		for i, v := range f.Violations {
			if i < 3 {
				t.Errorf("%s: %s", f.Name, v)
			}
		}
	}
	for _, name := range []string{"a read-model row equals the write model", "every stored order passes its constructor", "every stored payment passes its constructor"} {
		if looked[name] != payments {
			t.Errorf("%s: %d looked at", name, looked[name])
		}
	}
	var largest, smallest, lines, events int
	if err := pool.QueryRow(t.Context(), `
		WITH m AS (SELECT count(*) AS n FROM payment_view GROUP BY merchant_id)
		SELECT (SELECT max(n) FROM m), (SELECT min(n) FROM m), (SELECT count(*) FROM payment_timeline), (SELECT sum(sequence) FROM payment_view)`).
		Scan(&largest, &smallest, &lines, &events); err != nil {
		t.Fatal(err)
	}
	if largest < 5*smallest || lines != events {
		t.Errorf("the largest merchant has %d, the smallest %d; %d lines of %d events", largest, smallest, lines, events)
	}
	if err := seed.Run(t.Context(), c); !errors.Is(err, seed.ErrNotEmpty) {
		t.Errorf("a second time: %v", err)
	}
	c.Beside, c.Seed, c.Payments = true, 2, 10
	if err := seed.Run(t.Context(), c); err != nil {
		t.Errorf("beside them: %v", err)
	}
}
