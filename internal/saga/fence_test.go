package saga

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

// held gives a worker and a saga that it has claimed: a local step, then a call.
func held(t *testing.T) (*Worker, *Instance) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	d := definition()
	d.Steps = d.Steps[:1]
	d.Steps = append(d.Steps, Step{Kind: Pivot, Do: Action{Name: "pay", Call: &Call{
		Execute: func(context.Context, Request) Outcome { return Outcome{Verdict: Succeeded} },
		Lookup:  func(context.Context, Request) Outcome { return Outcome{Verdict: NotFound} },
		Record:  func(context.Context, Unit, *Instance, Outcome) error { return nil },
	}}})
	pause := func(int) time.Duration { return time.Millisecond }
	w, err := NewWorker(pool, Config{
		Definitions: []Definition{d}, Owner: "mine", CallTimeout: time.Second, Lease: 5 * time.Second, Concurrency: 1,
		Now: time.Now, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Policy: Policy{Horizon: time.Hour, KeyLifetime: time.Hour, Backoff: pause, UndoBackoff: pause, Shut: func() time.Duration { return time.Second }},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		return d.Begin(t.Context(), tx, Begin{MerchantID: "mer_1", ID: "sag_1", Subject: "ord_1", Data: json.RawMessage(`{}`)})
	})
	if err != nil {
		t.Fatal(err)
	}
	i := w.claimed(t, "mine")
	return w, i
}

func (w *Worker) claimed(t *testing.T, owner string) *Instance {
	t.Helper()
	own := w.Owner
	w.Owner = owner
	w.forget()
	claimed, err := w.claim(t.Context(), 1, 0)
	w.Owner = own
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claimed %d sagas: %v", len(claimed), err)
	}
	return claimed[0]
}

func attempts(t *testing.T, pool *pgxpool.Pool) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM saga_attempts`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A commit whose answer was lost may have taken effect: made again from what the
// worker knew before, it would do every local step a second time.
func TestACommitIsNotMadeTwice(t *testing.T) {
	w, i := held(t)
	before := *i
	first, again := &entry{saga: i}, &entry{saga: &before}
	if err := w.tryCommit(t.Context(), []*entry{first}, lockWait); err != nil || first.err != nil {
		t.Fatal(err, first.err)
	}
	n := attempts(t, w.pool)
	if err := w.tryCommit(t.Context(), []*entry{again}, lockWait); err != nil || !errors.Is(again.err, ErrFenced) {
		t.Errorf("the second commit: %v, %v", err, again.err)
	}
	if got := attempts(t, w.pool); got != n || n == 0 {
		t.Errorf("%d attempts, want %d", got, n)
	}
}

func TestALostSagaIsNotGivenBack(t *testing.T) {
	w, i := held(t)
	if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET due_at = now()`); err != nil {
		t.Fatal(err)
	}
	w.claimed(t, "other")
	if err := i.giveBack(t.Context(), w.pool, 0, true); err != nil {
		t.Fatal(err)
	}
	var owner string
	var tries int
	if err := w.pool.QueryRow(t.Context(), `SELECT coalesce(owner, 'nobody'), tries FROM sagas`).Scan(&owner, &tries); err != nil {
		t.Fatal(err)
	}
	if owner != "other" || tries != 0 {
		t.Errorf("the saga is %s's after %d tries", owner, tries)
	}
}

// The batch of a merchant goes on without the one whose saga is another's by now.
func TestAFencedSagaHoldsNobodyUp(t *testing.T) {
	w, i := held(t)
	err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
		return w.Definitions[0].Begin(t.Context(), tx, Begin{MerchantID: "mer_1", ID: "sag_2", Subject: "ord_2", Data: json.RawMessage(`{}`)})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET epoch = epoch + 1 WHERE id = 'sag_1'`); err != nil {
		t.Fatal(err)
	}
	lost, good := &entry{saga: i}, &entry{saga: w.claimed(t, "mine")}
	w.commitAll(t.Context(), []*entry{lost, good})
	if !errors.Is(lost.err, ErrFenced) || good.err != nil || good.saga.Step != "pay" || !good.saga.Intent {
		t.Errorf("%v, %v, at %s", lost.err, good.err, good.saga.Step)
	}
}

// A commit that fails for a moment, as by a lock that another holds too long, is
// tried again with what the call has found out: nothing is looked up for it.
func TestAnOutcomeOutlivesACommitThatFails(t *testing.T) {
	w, i := held(t)
	looked := false
	w.byName["test"][1].Steps[1].Do.Call.Lookup = func(context.Context, Request) Outcome {
		looked = true
		return Outcome{Verdict: NotFound}
	}
	failures := 2
	w.byName["test"][1].Steps[1].Do.Call.Record = func(context.Context, Unit, *Instance, Outcome) error {
		if failures--; failures >= 0 {
			return errors.New("not now")
		}
		return nil
	}
	w.drive(t.Context(), i)
	if i.State != Completed || looked || failures != -1 {
		t.Errorf("the saga is %s at %s, looked up %v, %d failures left", i.State, i.Step, looked, failures)
	}
}
