package order_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/saga"
)

func (w *world) notify(reference string) {
	w.t.Helper()
	if err := postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error {
		return w.orders.Notified(w.t.Context(), tx, provider.Notification{Provider: "simulator", ID: "evt_1", Reference: reference})
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) due() int {
	w.t.Helper()
	return w.count(`SELECT count(*) FROM sagas WHERE due_at <= now()`)
}

func TestANotificationEndsALongWait(t *testing.T) {
	w := newWorld(t)
	worker, err := saga.NewWorker(w.pool, saga.Config{
		Definitions: []saga.Definition{w.orders.Saga()}, Owner: "patient", CallTimeout: 500 * time.Millisecond,
		Lease: 3 * time.Second, Concurrency: 8, Now: time.Now, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Policy: saga.Policy{Horizon: time.Second, KeyLifetime: 24 * time.Hour, Backoff: func(int) time.Duration { return time.Hour }},
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := w.place("pm_card_timeout_applied", "A-1", 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	waits := func() bool {
		return w.count(`SELECT count(*) FROM sagas WHERE owner IS NULL AND due_at > now() + interval '50 minutes'`) == 1
	}
	turn := func() {
		t.Helper()
		if _, err := worker.Turn(ctx); err != nil {
			t.Fatal(err)
		}
		worker.Drain()
	}
	// The authorization and the capture are each done and never answered.
	for range 2 {
		for !waits() {
			turn()
		}
		turn()
		if !waits() {
			t.Fatal("the saga went on before it was due")
		}
		w.notify(id)
		if w.due() != 1 {
			t.Fatal("the notified saga is not due")
		}
		turn()
	}
	w.settle()
	if n := w.count(`SELECT count(*) FROM payments WHERE id = $1 AND status = 'succeeded'`, id); n != 1 {
		t.Error("the payment did not succeed")
	}
	if n := w.count(`SELECT count(*) FROM saga_attempts WHERE call = 'execute' AND step IN ('authorize_payment', 'capture_payment')`); n != 2 {
		t.Errorf("%d operations were sent, want 2", n)
	}
}

func TestANotificationTouchesNothingElse(t *testing.T) {
	w := newWorld(t)
	id, err := w.place("pm_card_visa", "A-1", 1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := w.place("pm_card_visa", "A-2", 1)
	if err != nil {
		t.Fatal(err)
	}
	set := func(sql string) {
		t.Helper()
		if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET `+sql); err != nil {
			t.Fatal(err)
		}
	}
	set(`due_at = now() + interval '1 hour'`)
	for _, reference := range []string{"", "pay_unheard_of"} {
		if w.notify(reference); w.due() != 0 {
			t.Errorf("a notification of %q made a saga due", reference)
		}
	}
	w.notify(other)
	if n := w.count(`SELECT count(*) FROM sagas s JOIN payments p ON p.order_id = s.subject WHERE p.id = $1 AND s.due_at > now()`, id); n != 1 || w.due() != 1 {
		t.Error("a notification made another payment's saga due")
	}
	set(`owner = 'somebody', due_at = now() + interval '1 minute'`) // due_at is a lease's end
	if w.notify(id); w.due() != 0 {
		t.Error("a notification ended a worker's lease")
	}
	set(`owner = NULL, state = 'parked', due_at = NULL`)
	if w.notify(id); w.due() != 0 {
		t.Error("a notification woke a saga that waits for a person")
	}
	set(`state = 'running', due_at = now() - interval '1 minute'`) // keeps its place among the due
	w.notify(id)
	if n := w.count(`SELECT count(*) FROM sagas WHERE due_at < now() - interval '30 seconds'`); n != 2 {
		t.Errorf("%d sagas kept their place, want 2", n)
	}
}
