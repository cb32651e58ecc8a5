package saga_test

import (
	"context"
	"testing"
	"time"

	"payments/internal/saga"
)

// A worker that is stopped after it committed an intent, and before the call, withdraws the
// intent. So the next worker makes the call at once and does not wait out the horizon.
func TestAStopWithdrawsTheIntentOfACallThatNeverBegan(t *testing.T) {
	pool := open(t)
	b := &bank{answer: saga.Outcome{Verdict: saga.Succeeded, Reference: "op_1"}}
	d := b.definition()
	d.Steps[0].Do.Call.Lookup = func(context.Context, saga.Request) saga.Outcome {
		t.Error("looked up a call that never began")
		return saga.Outcome{Verdict: saga.NotFound}
	}
	begin(t, pool, d)
	ctx, stop := context.WithCancel(t.Context())
	stopped := worker(t, pool, "stopped", d, func(c *saga.Config) {
		c.Policy.Horizon = time.Hour
		c.Crash = func(point, _ string) bool {
			if point == "committed" {
				stop()
			}
			return false
		}
	})
	if _, err := stopped.RunOnce(ctx); err != nil {
		t.Fatal(err)
	}
	stopped.Drain()
	var intent, due bool
	var outcome, code string
	if err := pool.QueryRow(t.Context(), `
		SELECT s.intent, s.owner IS NULL AND s.due_at < now() + interval '1 second', a.outcome, a.code
		FROM sagas s JOIN saga_attempts a ON a.saga_id = s.id`).Scan(&intent, &due, &outcome, &code); err != nil {
		t.Fatal(err)
	}
	if intent || !due || outcome != "not_sent" || code != "stopped" {
		t.Errorf("intent %v, due %v, attempt %s %s", intent, due, outcome, code)
	}
	next := worker(t, pool, "next", d, func(c *saga.Config) { c.Policy.Horizon = time.Hour })
	for read(t, pool).State == "running" {
		turn(t, next)
	}
	if n := b.executed.Load(); n != 1 {
		t.Errorf("executed %d times", n)
	}
}
