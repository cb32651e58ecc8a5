package saga

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// A saga that has to come again is not queued behind a backlog that has done nothing
// yet, and a slot stays for that: neither starves the other.
func TestWhatHasBegunIsClaimedFirst(t *testing.T) {
	w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := w.pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(kind string, attempts, count int) {
		for n := range count {
			exec(`INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, data, attempts, abortable, due_at)
				VALUES ('mer_1', $1, 'test', 1, $1, 'running', 'reserve', '{}', $2, true, now() - make_interval(mins => 10 - 5 * $2, secs => 60 - $3))`,
				fmt.Sprint(kind, n), attempts, n)
		}
	}
	claims := func(limit, share int) (fresh, begun int) {
		t.Helper()
		got, err := w.claim(t.Context(), limit, share)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range got {
			if i.number == 0 {
				fresh++
			} else {
				begun++
			}
		}
		return fresh, begun
	}
	for n, c := range []struct{ isFresh, isBegun, limit, share, fresh, begun int }{
		{10, 10, 4, 1, 1, 3}, {10, 10, 4, 0, 0, 4}, {10, 0, 4, 1, 4, 0}, {0, 10, 4, 1, 0, 4}, {10, 1, 4, 1, 3, 1}, {2, 3, 8, 1, 2, 3}, {10, 10, 1, 1, 1, 0},
	} {
		exec(`UPDATE sagas SET state = 'completed', due_at = NULL`)
		begin(fmt.Sprint(n, "fresh"), 0, c.isFresh)
		begin(fmt.Sprint(n, "begun"), 1, c.isBegun)
		if fresh, begun := claims(c.limit, c.share); fresh != c.fresh || begun != c.begun {
			t.Errorf("%+v: claimed %d that are fresh and %d that have begun", c, fresh, begun)
		}
	}
}

// However few calls are allowed at once, and however many sagas of one kind are due
// without end, one of the other kind is claimed within a few turns.
func TestNeitherOfTheFreshAndTheBegunStarves(t *testing.T) {
	for name, c := range map[string]struct{ backlog, one int }{"the fresh are many": {0, 1}, "the begun are many": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
			due := func(id string, attempts int, ago time.Duration) {
				t.Helper()
				if _, err := w.pool.Exec(t.Context(), `
					INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, data, attempts, abortable, due_at)
					VALUES ('mer_1', $1, 'test', 1, $1, 'running', 'reserve', '{}', $2, true, now() - $3::interval)`, id, attempts, ago); err != nil {
					t.Fatal(err)
				}
			}
			for n := range 20 {
				due(fmt.Sprint("backlog", n), c.backlog, time.Hour)
			}
			due("one", c.one, time.Minute)
			for range freshShare {
				if _, err := w.RunOnce(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.Drain()
			}
			var claimed bool
			if err := w.pool.QueryRow(t.Context(), `SELECT epoch > 0 FROM sagas WHERE id = 'one'`).Scan(&claimed); err != nil || !claimed {
				t.Errorf("after %d turns it was not claimed (%v)", freshShare, err)
			}
		})
	}
}

// News is a reason to look up sooner what is to be looked up, and no more: not what
// stands at another step, was never sent, or has just been looked up.
func TestNewsHastensOneLookup(t *testing.T) {
	w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
	for name, c := range map[string]struct {
		set, step, due string
	}{
		"it is looked up":            {`resolving = true`, "authorize", "now"},
		"the step is not known":      {`resolving = true`, "", "now"},
		"it waits for its beginning": {`attempts = 0`, "authorize", "now"},
		"it was never sent":          {`resolving = false`, "authorize", "later"},
		"news of another step":       {`resolving = true`, "capture", "later"},
		"a worker has it in hand":    {`resolving = true, owner = 'w'`, "authorize", "later"},
		"it has just been looked up": {`resolving = true, updated_at = now()`, "authorize", "soon"},
		"it is due sooner":           {`resolving = true, updated_at = now(), due_at = now() + interval '10 ms'`, "authorize", "now"},
	} {
		t.Run(name, func(t *testing.T) {
			var due string
			err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), `UPDATE sagas SET step = 'authorize', attempts = 3, resolving = false, owner = NULL,
					due_at = now() + interval '1 hour', updated_at = now() - interval '1 min'`); err != nil {
					return err
				}
				if _, err := tx.Exec(t.Context(), `UPDATE sagas SET `+c.set); err != nil {
					return err
				}
				for range 3 {
					if err := Nudge(t.Context(), tx, "mer_1", "sag_1", c.step); err != nil {
						return err
					}
				}
				return tx.QueryRow(t.Context(), `
					SELECT CASE WHEN due_at < now() + $1::interval THEN 'now' WHEN due_at = now() + $1::interval THEN 'soon' ELSE 'later' END FROM sagas`,
					newsPause).Scan(&due)
			})
			if err != nil || due != c.due {
				t.Errorf("due %s, not %s (%v)", due, c.due, err)
			}
		})
	}
}
