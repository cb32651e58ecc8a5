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

// The answer to a commit may be lost. Made again, it must not have its effect
// twice, though the saga turned back without an attempt.
func TestACommitThatTookEffectIsNotMadeAgain(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	d, ended := definition(), 0
	d.Compensated = func(context.Context, pgx.Tx, *Instance) error { ended++; return nil }
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
		return Abort(t.Context(), tx, "mer_1", d.Name, "ord_1", Rejection{Code: "canceled"})
	})
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := claim(t.Context(), pool, "w", w.names, w.versions, w.Lease, 1, time.Now)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claimed %d (%v)", len(claimed), err)
	}
	before := *claimed[0]
	for n, want := range []error{nil, ErrFenced} {
		i := before
		e := &entry{saga: &i}
		if err := w.tryCommit(t.Context(), []*entry{e}); err != nil || !errors.Is(e.err, want) {
			t.Errorf("commit %d: %v, %v; want %v", n+1, err, e.err, want)
		}
	}
	if ended != 1 {
		t.Errorf("it ended %d times", ended)
	}
}
