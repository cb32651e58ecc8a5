package order_test

import (
	"context"
	"testing"
	"time"
)

// However long the provider is away, its sagas wait, none fails, the circuit keeps
// them from trying in vain, and all of them finish when it is back.
func TestAnOutageFailsNothingAndBurnsNoAttempts(t *testing.T) {
	w := newWorld(t)
	w.policy.Shut = func() time.Duration { return time.Hour }
	const payments = 40
	var ids []string
	for range payments {
		ids = append(ids, w.placed("pm_card_visa", ""))
	}
	w.fault(`{"kind": "outage", "operation": "*", "seconds": 600}`)
	worker := w.worker()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for gaugeValue(t, w, "payments_saga_circuit_open") == 0 {
		if _, err := worker.RunOnce(ctx); err != nil {
			t.Fatal(err)
		}
		worker.Drain()
	}
	tried := w.count(`SELECT count(*) FROM saga_attempts WHERE call <> 'local'`)
	// Every saga comes up for its turn again and again, and none is tried: the pause is longer than the test.
	for range 5 {
		w.exec(`UPDATE sagas SET due_at = now() WHERE owner IS NULL`)
		if _, err := worker.RunOnce(ctx); err != nil {
			t.Fatal(err)
		}
		worker.Drain()
	}
	if n := w.count(`SELECT count(*) FROM saga_attempts WHERE call <> 'local'`) - tried; n != 0 {
		t.Errorf("%d attempts with the circuit open", n)
	}
	if n := w.count(`SELECT count(*) FROM payments WHERE status <> 'processing'`); n != 0 {
		t.Errorf("%d payments ended while the provider was away", n)
	}
	w.heal()
	w.policy.Shut = func() time.Duration { return 20 * time.Millisecond }
	w.exec(`UPDATE sagas SET due_at = now() WHERE owner IS NULL`)
	w.settle()
	for _, id := range ids {
		if s := w.status(id); s != "succeeded" {
			t.Errorf("%s is %s", id, s)
		}
	}
	w.audited()
}
