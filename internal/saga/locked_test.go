package saga

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// What one saga would write is kept locked by another transaction: the others of its
// commit go through.
func TestALockedRowFailsItsOwnSagaAlone(t *testing.T) {
	d := definition()
	d.Steps[0].Do.Local = &Local{Do: func(ctx context.Context, u Unit, i *Instance) (Outcome, error) {
		_, err := u.(Transaction).Exec(ctx, `UPDATE merchants SET name = 'new' WHERE name = $1`, i.Subject)
		return Outcome{Verdict: Succeeded}, err
	}}
	w, first := committer(t, d, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ('mer_00000000000000000000000000', 'ord_hot')`)
		return err
	})
	entries := []*entry{{saga: &first}}
	for _, subject := range []string{"ord_hot", "ord_2"} {
		err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
			return d.Begin(t.Context(), tx, Begin{MerchantID: "mer_1", ID: "sag_" + subject, Subject: subject, Data: json.RawMessage(`{}`)})
		})
		if err != nil {
			t.Fatal(err)
		}
		i := w.claimOne(t)
		entries = append(entries, &entry{saga: &i})
	}
	done := errors.New("done")
	err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT FROM merchants FOR UPDATE`); err != nil {
			return err
		}
		w.commitAll(t.Context(), entries)
		return done
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if hot := e.saga.Subject == "ord_hot"; hot != postgres.Locked(e.err) || !hot && e.err != nil {
			t.Errorf("%s: %v", e.saga.Subject, e.err)
		}
	}
}

// A commit that gets no answer ends by itself: its row, and those behind it, wait no
// longer than a lease.
func TestACommitDoesNotWaitForEver(t *testing.T) {
	d := definition()
	d.Steps[0].Do.Local = &Local{Do: func(ctx context.Context, _ Unit, _ *Instance) (Outcome, error) {
		<-ctx.Done()
		return Outcome{}, ctx.Err()
	}}
	w, i := committer(t, d, func(pgx.Tx) error { return nil })
	w.Lease = 100 * time.Millisecond
	if err := w.tryCommit(context.WithoutCancel(t.Context()), []*entry{{saga: &i}}, lockWait); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
