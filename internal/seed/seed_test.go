package seed_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/audit"
	"payments/internal/devstack/devtest"
	"payments/internal/order"
	"payments/internal/postgres"
	"payments/internal/provider"
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

// bank has done for the payments that are there what they say.
type bank struct{ states []provider.State }

func (b bank) List(context.Context, time.Time, time.Time, string) (provider.Page, error) {
	return provider.Page{States: b.states}, nil
}

func (b bank) Account(context.Context) (string, error) { return "simulator:led_seeded", nil }

func (b bank) Inspect(context.Context, provider.Payment) (provider.State, error) {
	return provider.State{}, errors.New("nothing differs, so that nothing has to be looked at again")
}

func newBank(t *testing.T, pool *pgxpool.Pool) (b bank) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT id, coalesce(authorization_reference, ''), coalesce(capture_reference, ''), status, currency, amount, amount_refunded FROM payments`)
	if err != nil {
		t.Fatal(err)
	}
	var id, authorization, capture, status, currency string
	var amount, refunded int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &authorization, &capture, &status, &currency, &amount, &refunded}, func() error {
		s := provider.State{Reference: id}
		if authorization != "" {
			a := provider.AuthorizationState{ID: authorization, Status: provider.AuthorizationVoided, Amount: amount, Currency: currency}
			if capture != "" {
				a.Status = provider.AuthorizationCaptured
				s.Captures = append(s.Captures, provider.CaptureState{ID: capture, Authorization: authorization, Amount: amount, Currency: currency})
			}
			s.Authorizations = append(s.Authorizations, a)
		}
		if refunded > 0 {
			s.Refunds = append(s.Refunds, provider.RefundState{ID: "re_" + id, Capture: capture, Status: provider.RefundSucceeded, Amount: refunded, Currency: currency})
		}
		b.states = append(b.states, s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b
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
	findings, err := audit.Audit{Write: pool, Read: pool, Provider: newBank(t, pool), Settled: true}.Run(t.Context())
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
