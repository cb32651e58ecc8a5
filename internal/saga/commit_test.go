package saga

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

// committer is a worker and the one saga that it has claimed.
func committer(t *testing.T, d Definition, ask func(tx pgx.Tx) error) (*Worker, Instance) {
	t.Helper()
	pool, err := postgres.OpenEngine(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	pause := func(int) time.Duration { return time.Millisecond }
	w, err := NewWorker(pool, Config{
		Definitions: []Definition{d}, Owner: "w", CallTimeout: time.Second, Lease: 5 * time.Second, Concurrency: 1, Now: time.Now,
		Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Policy: Policy{Backoff: pause, UndoBackoff: pause, Shut: func() time.Duration { return time.Millisecond }},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		if err := d.Begin(t.Context(), tx, Begin{MerchantID: "mer_1", ID: "sag_1", Subject: "ord_1", Data: json.RawMessage(`{}`)}); err != nil {
			return err
		}
		return ask(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	claimed := w.claimOne(t)
	return w, claimed
}

func (w *Worker) claimOne(t *testing.T) Instance {
	t.Helper()
	claimed, err := w.claim(t.Context(), 1, 0)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claimed %d (%v)", len(claimed), err)
	}
	return *claimed[0]
}

// The answer to a commit may be lost. Made again, it must not have its effect
// twice, though the saga turned back without an attempt.
func TestACommitThatTookEffectIsNotMadeAgain(t *testing.T) {
	effects := 0
	counted := definition()
	counted.Steps[0].Do.Local = &Local{Do: func(context.Context, Unit, *Instance) (Outcome, error) {
		effects++
		return Outcome{Verdict: Succeeded}, nil
	}}
	counted.Steps[1].Do = Action{Name: "wait", Await: &Await{
		Within: func(json.RawMessage) time.Duration { return time.Hour }, Lapse: Outcome{Verdict: Rejected},
	}}
	counted.Compensated = func(context.Context, Unit, *Instance) error { effects++; return nil }
	for name, ask := range map[string]func(tx pgx.Tx) error{
		"a step": func(pgx.Tx) error { return nil },
		"an end": func(tx pgx.Tx) error {
			return Abort(t.Context(), tx, "mer_1", counted.Name, "ord_1", Rejection{Code: "canceled"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			effects = 0
			w, before := committer(t, counted, ask)
			for n, want := range []error{nil, ErrFenced} {
				i := before
				e := &entry{saga: &i}
				if err := w.tryCommit(t.Context(), []*entry{e}, lockWait); err != nil || !errors.Is(e.err, want) {
					t.Errorf("commit %d: %v, %v; want %v", n+1, err, e.err, want)
				}
			}
			if effects != 1 {
				t.Errorf("%d effects", effects)
			}
		})
	}
}

// Another's claim is enough to stop a worker, though nothing was written since: it
// neither commits nor gives back what it no longer holds.
func TestAClaimByAnotherFencesEveryWrite(t *testing.T) {
	w, stale := committer(t, definition(), func(pgx.Tx) error { return nil })
	if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET due_at = now()`); err != nil {
		t.Fatal(err)
	}
	held := w.claimOne(t)
	row := func() (s string) {
		if err := w.pool.QueryRow(t.Context(), `SELECT sagas::text FROM sagas`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := row()
	e := &entry{saga: &stale}
	if err := w.tryCommit(t.Context(), []*entry{e}, lockWait); err != nil || !errors.Is(e.err, ErrFenced) {
		t.Errorf("a stale commit: %v, %v", err, e.err)
	}
	if err := stale.giveBack(t.Context(), w.pool, 0, true); err != nil {
		t.Fatal(err)
	}
	err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
		var b pgx.Batch
		w.save(&b, "mer_1", []*entry{{saga: &stale, next: stale}})
		return tx.SendBatch(t.Context(), &b).Close()
	})
	if !errors.Is(err, ErrFenced) {
		t.Errorf("a stale save: %v", err)
	}
	if after := row(); after != before {
		t.Errorf("it was %s\nand is %s", before, after)
	}
	// Both may come into one commit of a process that was slow.
	again, fresh := &entry{saga: &stale}, &entry{saga: &held}
	if err := w.tryCommit(t.Context(), []*entry{fresh, again}, lockWait); err != nil || fresh.err != nil || !errors.Is(again.err, ErrFenced) {
		t.Errorf("in one commit: %v, %v and %v", err, fresh.err, again.err)
	}
}

func TestAHolderGivesItsLeaseBack(t *testing.T) {
	w, held := committer(t, definition(), func(pgx.Tx) error { return nil })
	if err := held.giveBack(t.Context(), w.pool, 0, false); err != nil {
		t.Fatal(err)
	}
	w.claimOne(t)
}
