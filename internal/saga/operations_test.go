package saga

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Among 100,000 sagas that have ended the few that have not are found by the index
// that holds them alone, with the plan that Postgres makes for any parameters too.
func TestSagasThatHaveNotEndedAreListedByTheirIndex(t *testing.T) {
	w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
	conn, err := w.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `
		INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, data, abortable)
		SELECT 'mer_1', 'sag_old_' || n, 'test', 1, 'old_' || n, 'completed', 'confirm', '{}', false FROM generate_series(1, 100000) n;
		SET plan_cache_mode = force_generic_plan`); err != nil {
		t.Fatal(err)
	}
	for _, s := range []State{"", Running, Compensating, Parked} {
		if _, err := conn.Exec(t.Context(), `PREPARE list (text, interval, bool, text, int) AS `+listing(s)); err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), `EXPLAIN EXECUTE list ('', '0', false, '', 100)`)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || !strings.Contains(strings.Join(plan, "\n"), "sagas_not_ended") {
			t.Errorf("state %q: %s (%v)", s, strings.Join(plan, "\n"), err)
		}
		if _, err := conn.Exec(t.Context(), `DEALLOCATE list`); err != nil {
			t.Fatal(err)
		}
	}
}
