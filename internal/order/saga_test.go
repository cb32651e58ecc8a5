package order_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/provider/simulator"
	"payments/internal/saga"
	"payments/internal/secret"
)

type world struct {
	t        *testing.T
	pool     *pgxpool.Pool
	orders   *order.Service
	provider provider.Provider
	merchant string
	ids      payment.Generator
}

const startStock = 100

func newWorld(t *testing.T) *world {
	t.Helper()
	db := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), db.URL)
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
	bank, err := provider.NewHTTP(server.URL, provider.HTTPConfig{Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	keyset, err := secret.NewCipherKeyset()
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := secret.ParseAEAD(keyset)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, pool: pool, provider: bank, ids: payment.Generator{Now: time.Now, Random: rand.Reader}}
	w.orders = order.New(pool, w.ids, cipher, bank, nil)
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

func (w *world) place(method, reference string, quantity int64) (string, error) {
	w.t.Helper()
	o, err := payment.NewOrder(payment.Draft{
		Amount: quantity * 2499, Currency: "EUR", PaymentMethod: method, CustomerReference: "cust-1", CustomerEmail: "ada@example.com",
		OrderReference: reference, Lines: []payment.DraftLine{{SKU: "TSHIRT-M", Quantity: quantity, UnitAmount: 2499}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	resp, _, err := w.orders.Place(w.t.Context(), idempotency.Request{MerchantID: w.merchant, Key: rand.Text()}, o,
		func(p order.Placed) (idempotency.Response, error) {
			return idempotency.Response{ResourceID: p.PaymentID, Status: 202, Header: map[string]string{}, Body: []byte("{}")}, nil
		})
	return resp.ResourceID, err
}

// settle runs a worker until no saga is live.
func (w *world) settle() {
	w.t.Helper()
	worker, err := saga.NewWorker(w.pool, saga.Config{
		Definitions: []saga.Definition{w.orders.Saga()}, Owner: rand.Text(), CallTimeout: 500 * time.Millisecond,
		Lease: 3 * time.Second, Concurrency: 8, Now: time.Now, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Policy: saga.Policy{Horizon: time.Second, KeyLifetime: time.Hour, Backoff: func(int) time.Duration { return 20 * time.Millisecond }},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for w.count(`SELECT count(*) FROM sagas WHERE due_at IS NOT NULL`) > 0 {
		if _, err := worker.Turn(ctx); err != nil {
			w.t.Fatal(err)
		}
		worker.Drain()
	}
}

func (w *world) count(sql string, args ...any) (n int) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), sql, args...).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) events(paymentID string) (types []string) {
	w.t.Helper()
	var joined string
	err := w.pool.QueryRow(w.t.Context(), `
		SELECT coalesce(string_agg((SELECT h->>1 FROM jsonb_array_elements(o.headers) h WHERE h->>0 = 'ce_type'), ' ' ORDER BY o.sequence), '')
		FROM outbox o JOIN payments p ON p.order_id = o.key WHERE p.id = $1`, paymentID).Scan(&joined)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Fields(joined)
}

func TestEveryPaymentMethodEndsAsItShould(t *testing.T) {
	won := []string{"order.placed", "stock.reserved", "payment.authorized", "payment.captured", "order.confirmed"}
	declined := []string{"order.placed", "stock.reserved", "payment.declined", "stock.released", "order.failed"}
	for method, want := range map[string]struct {
		status string
		events []string
	}{
		"pm_card_visa":               {"succeeded", won},
		"pm_card_declined":           {"failed", declined},
		"pm_card_insufficient_funds": {"failed", declined},
		"pm_card_capture_declined": {"failed", []string{
			"order.placed", "stock.reserved", "payment.authorized", "payment.declined", "payment.voided", "stock.released", "order.failed",
		}},
		"pm_card_timeout_applied": {"succeeded", won},
		"pm_card_timeout_lost":    {"succeeded", won},
		"pm_card_flaky":           {"succeeded", won},
	} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t)
			id, err := w.place(method, "A-1", 2)
			if err != nil {
				t.Fatal(err)
			}
			w.settle()
			var status string
			if err := w.pool.QueryRow(t.Context(), `SELECT status FROM payments WHERE id = $1`, id).Scan(&status); err != nil {
				t.Fatal(err)
			}
			if status != want.status || !slices.Equal(w.events(id), want.events) {
				t.Fatalf("got %s after %v, want %s after %v", status, w.events(id), want.status, want.events)
			}
			stock, err := w.orders.Stock(t.Context(), w.merchant)
			if err != nil {
				t.Fatal(err)
			}
			expected := order.StockLevel{MerchantID: w.merchant, SKU: "TSHIRT-M", OnHand: startStock}
			if want.status == "succeeded" {
				expected.OnHand, expected.Sold = startStock-2, 2
			}
			if len(stock) != 1 || stock[0] != expected {
				t.Fatalf("stock is %+v, want %+v", stock, expected)
			}
			if n := w.count(`SELECT count(*) FROM sagas WHERE state NOT IN ('completed', 'compensated')`); n != 0 {
				t.Fatalf("%d sagas did not end", n)
			}
		})
	}
}

func TestNoStockFailsBeforeAnyMoney(t *testing.T) {
	w := newWorld(t)
	id, err := w.place("pm_card_visa", "A-1", startStock+1)
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got, want := w.events(id), []string{"order.placed", "stock.rejected", "order.failed"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if n := w.count(`SELECT count(*) FROM saga_attempts WHERE call <> 'local'`); n != 0 {
		t.Fatalf("%d calls to the provider", n)
	}
}

func TestAnOrderIsPaidOnceAndAFailedOneMayBeTriedAgain(t *testing.T) {
	w := newWorld(t)
	code := func(err error) payment.Code {
		if e, ok := errors.AsType[*payment.Error](err); ok {
			return e.Code
		}
		return ""
	}
	if _, err := w.place("pm_card_declined", "A-1", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := w.place("pm_card_visa", "A-1", 1); code(err) != payment.CodeOrderInProgress {
		t.Fatalf("while the first is live: %v", err)
	}
	w.settle()
	if _, err := w.place("pm_card_visa", "A-1", 1); err != nil {
		t.Fatalf("after the first failed: %v", err)
	}
	w.settle()
	if _, err := w.place("pm_card_visa", "A-1", 1); code(err) != payment.CodeOrderAlreadyPaid {
		t.Fatalf("after it was paid: %v", err)
	}
}
