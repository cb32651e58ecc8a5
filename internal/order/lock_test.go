package order_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/saga"
)

// whileBlocked runs do beside a transaction that holds what hold locks; once do is
// kept waiting by it, free must lock at once: do may not hold that yet, or two
// transactions that keep the order of locks could deadlock.
func (w *world) whileBlocked(hold, free string, do func() error) {
	w.t.Helper()
	tx, err := w.pool.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := tx.Exec(w.t.Context(), hold); err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	for w.waiters() == 0 {
		select {
		case err := <-done:
			w.t.Fatalf("it did not wait for %s: %v", hold, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if _, err := tx.Exec(w.t.Context(), free+" NOWAIT"); err != nil {
		w.t.Errorf("while it waits for %s: %v", hold, err)
	}
	if err := tx.Rollback(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if err := <-done; err != nil {
		w.t.Error(err)
	}
}

// waiters counts the sessions that wait for a lock.
func (w *world) waiters() int {
	w.t.Helper()
	return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
}

// awaitWaiters returns once n sessions wait for locks.
func (w *world) awaitWaiters(n int) {
	w.t.Helper()
	w.await(fmt.Sprintf("%d sessions wait for a lock", n), func() bool { return w.waiters() >= n })
}

// await looks until it has come to pass.
func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-w.t.Context().Done():
			w.t.Fatalf("it did not come to pass that %s", what)
		}
	}
}

// hot begins a transaction that keeps the merchant's articles locked, as a commit of another
// order with the same article does for a moment.
func (w *world) hot() (free func()) {
	w.t.Helper()
	tx, err := w.pool.Begin(w.t.Context())
	if err == nil {
		_, err = tx.Exec(w.t.Context(), `SELECT 1 FROM stock WHERE merchant_id = $1 FOR NO KEY UPDATE`, w.merchant)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		if err := tx.Rollback(w.t.Context()); err != nil {
			w.t.Error(err)
		}
	}
}

func TestABasketsStockIsLockedInTheOrderOfItsSKUs(t *testing.T) {
	w := newWorld(t)
	for _, sku := range []string{"B", "A"} { // in the order of the disk
		stock, err := payment.NewStock("", w.merchant, sku, startStock)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.orders.SetStock(t.Context(), []payment.Stock{stock}); err != nil {
			t.Fatal(err)
		}
	}
	id := w.placed("pm_card_visa", "", payment.DraftLine{SKU: "B", Quantity: 1}, payment.DraftLine{SKU: "A", Quantity: 1})
	data := one[[]byte](w, `SELECT data FROM sagas WHERE id = $1`, w.sagaOf(id))
	w.whileBlocked(`SELECT FROM stock WHERE sku = 'A' FOR UPDATE`, `SELECT FROM stock WHERE sku = 'B' FOR UPDATE`,
		w.lock([]saga.Plan{{Saga: &saga.Instance{Data: data}, Locals: []string{"reserve_stock"}}}))
}

func TestTheOrdersOfACommitAreLockedInTheOrderOfTheirIDs(t *testing.T) {
	w := newWorld(t)
	w.placed("pm_card_visa", "")
	w.placed("pm_card_visa", "")
	first, second := one[string](w, `SELECT min(id) FROM orders`), one[string](w, `SELECT max(id) FROM orders`)
	var plans []saga.Plan
	for _, id := range []string{second, first} {
		plans = append(plans, saga.Plan{Saga: &saga.Instance{Data: one[[]byte](w, `SELECT data FROM sagas WHERE subject = $1`, id)}})
	}
	w.exec(`UPDATE orders SET updated_at = now() WHERE id = $1`, first) // behind the second on the disk
	row := func(id string) string { return `SELECT FROM orders WHERE id = '` + id + `' FOR UPDATE` }
	w.whileBlocked(row(first), row(second), w.lock(plans))
}

// lock takes a commit's locks, reading the tables in the order of the disk.
func (w *world) lock(plans []saga.Plan) func() error {
	return func() error {
		return postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(w.t.Context(), `SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off`); err != nil {
				return err
			}
			_, err := w.orders.Open(w.t.Context(), tx, w.merchant, plans)
			return err
		})
	}
}

func TestARefundLocksItsOrderBeforeItsPayment(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	w.settle()
	w.whileBlocked(`SELECT FROM orders FOR UPDATE`, `SELECT FROM payments FOR UPDATE`, func() error {
		_, err := w.refund(t.Context(), id, nil)
		return err
	})
}

func TestTheDatabaseRefusesRefundsBeyondTheCapture(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	w.settle()
	for _, column := range []string{"amount_refunding", "amount_refunded"} {
		_, err := w.pool.Exec(t.Context(), `UPDATE payments SET `+column+` = amount_captured + 1 WHERE id = $1`, id)
		if postgres.Constraint(err) != "payments_refunds_bounded" {
			t.Errorf("%s: %v", column, err)
		}
	}
}
