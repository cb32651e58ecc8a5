package order_test

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
	"payments/internal/provider"
)

// turnBackUnproven cancels an order while its authorization has no answer, and the
// bank carries it out long after the horizon.
func (w *world) turnBackUnproven(latency string) string {
	w.t.Helper()
	w.fault(`{"kind": "late_applied", "operation": "authorization", "latency_ms": ` + latency + `}`)
	id := w.placed("pm_card_visa", "")
	worker := w.worker()
	for w.count(`SELECT count(*) FROM sagas WHERE resolving`) == 0 {
		if _, err := worker.Turn(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		worker.Drain()
	}
	w.change(func() error { return w.orders.Cancel(w.t.Context(), w.merchant, id) })
	w.settle()
	if s := w.status(id); s != "canceled" {
		w.t.Fatalf("the payment is %s", s)
	}
	if got := w.ledger(id); got != nil {
		w.t.Fatalf("the bank was not late: %v", got)
	}
	return id
}

func (w *world) voidedInTheEnd(id string) {
	w.t.Helper()
	if got, want := w.ledger(id), []string{"authorization:succeeded", "void:succeeded"}; !slices.Equal(got, want) {
		w.t.Errorf("the bank did %v, want %v", got, want)
	}
	if events := w.events(id); events[len(events)-1] != "payment.voided" {
		w.t.Errorf("events %v", events)
	}
	w.audited()
}

func TestALateSuccessAfterRollbackIsVoidedByLookup(t *testing.T) {
	w := newWorld(t)
	id := w.turnBackUnproven("1500")
	w.applied(id)
	// The next look of the search is seconds away: bring it here.
	w.exec(`UPDATE sagas SET due_at = now() WHERE definition = 'orphan_void'`)
	w.drain()
	w.voidedInTheEnd(id)
}

// applied waits for the bank's late authorization.
func (w *world) applied(id string) {
	w.t.Helper()
	for len(w.ledger(id)) == 0 {
		select {
		case <-w.t.Context().Done():
			w.t.Fatal("never applied")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestALateSuccessAfterRollbackIsVoidedOnNotification(t *testing.T) {
	w := newWorld(t)
	id := w.turnBackUnproven("1500")
	key := w.sagaOf(id) + ":authorize_payment"
	notify := func() {
		err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
			return w.orders.Notified(t.Context(), tx, provider.Notification{Reference: id, Key: key, Operation: provider.Authorization})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// A lie before it is true starts nothing that holds or takes anything.
	notify()
	worker := w.worker()
	if _, err := worker.Turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker.Drain()
	if got := w.ledger(id); got != nil {
		t.Fatalf("the bank did %v", got)
	}
	w.applied(id)
	notify()
	w.drain()
	w.voidedInTheEnd(id)
	notify() // late and twice
	w.drain()
	w.voidedInTheEnd(id)
}

func TestANotificationMakesResolveHappenSooner(t *testing.T) {
	w := newWorld(t)
	w.policy.Backoff = func(int) time.Duration { return time.Hour }
	id := w.placed("pm_card_timeout_applied", "")
	worker := w.worker()
	for range 10 {
		if _, err := worker.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		worker.Drain()
		err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
			return w.orders.Notified(t.Context(), tx, provider.Notification{Reference: id, Key: w.sagaOf(id) + ":x", Operation: provider.Capture})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := w.status(id); s != "succeeded" {
		t.Errorf("an hour before its next look: %s", s)
	}
	for _, stranger := range []provider.Notification{{Reference: "pay_x", Key: "sag_x:y"}, {Reference: id, Key: ""}, {}} {
		if err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error { return w.orders.Notified(t.Context(), tx, stranger) }); err != nil {
			t.Errorf("%+v: %v", stranger, err)
		}
	}
}
