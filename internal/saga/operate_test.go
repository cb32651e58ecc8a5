package saga_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
	"payments/internal/saga"
)

var ada = saga.By{Operator: "key", Holder: "ada", Reason: "it takes long"}

// An operator's wish for news that comes while a request is under way must not
// make the next worker believe that the request was concluded: when this one dies,
// its request may still be carried out, and nothing can turn back any more.
func TestAnActDuringACallLosesNothingOfItsIntent(t *testing.T) {
	for name, act := range map[string]func(*saga.Operations, context.Context, saga.By, string) error{
		"retry": (*saga.Operations).Retry, "resolve": (*saga.Operations).Resolve,
	} {
		t.Run(name, func(t *testing.T) {
			pool := open(t)
			b := &bank{answer: saga.Outcome{Verdict: saga.Unknown, Code: "timeout", InFlight: true}}
			d := b.definition()
			d.Steps[0].Do.Call.Lookup = func(context.Context, saga.Request) saga.Outcome { return saga.Outcome{Verdict: saga.NotFound} }
			b.during = func() {
				if err := act(saga.NewOperations(pool, d), t.Context(), ada, "sag_1"); err != nil {
					t.Error(err)
				}
			}
			begin(t, pool, d)
			turn(t, worker(t, pool, "first", d, func(c *saga.Config) {
				c.Crash = func(point, _ string) bool { return point == "called" }
			}))
			if _, err := pool.Exec(t.Context(), `UPDATE sagas SET due_at = now()`); err != nil {
				t.Fatal(err)
			}
			turn(t, worker(t, pool, "second", d, func(c *saga.Config) {
				c.Policy.Horizon = time.Hour
				c.Policy.Backoff = func(int) time.Duration { return time.Hour }
			}))
			if len(b.keys) != 1 {
				t.Errorf("sent %d times inside the horizon", len(b.keys))
			}
			err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
				return saga.Abort(t.Context(), tx, "mer_1", "test", "ord_1", saga.Rejection{Code: "canceled"})
			})
			if !errors.Is(err, saga.ErrPastPivot) {
				t.Errorf("a wish to turn back after the pivot was sent: %v", err)
			}
		})
	}
}

// What was sent and not found is looked up anew after any wait: it may have been
// carried out meanwhile, and its key may have expired.
func TestAfterAPauseARequestIsLookedUpBeforeItIsSentAgain(t *testing.T) {
	pool := open(t)
	b := &bank{answer: saga.Outcome{Verdict: saga.Unknown, Code: "timeout"}}
	d := b.definition()
	operations, lookups := saga.NewOperations(pool, d), 0
	d.Steps[0].Do.Call.Lookup = func(context.Context, saga.Request) saga.Outcome {
		if lookups++; lookups == 1 {
			if err := operations.Pause(t.Context(), ada, "sag_1"); err != nil {
				t.Error(err)
			}
		}
		return saga.Outcome{Verdict: saga.NotFound}
	}
	begin(t, pool, d)
	w := worker(t, pool, "w", d)
	for lookups == 0 {
		turn(t, w)
	}
	if err := operations.Resume(t.Context(), ada, "sag_1"); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE sagas SET due_at = now(), step_since = now() - interval '2 hours'`); err != nil {
		t.Fatal(err)
	}
	turn(t, w)
	if r := read(t, pool); r.State != "parked" || lookups != 2 || len(b.keys) != 1 {
		t.Errorf("%d lookups, sent %d times, and it is %s: the key expired during the pause", lookups, len(b.keys), r.State)
	}
}
