package saga

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// During a deployment a process of the version before claims, saves and gives back without
// knowing claim_at. Neither takes what the other holds, and each takes what the other left.
func TestAProcessOfTheVersionBeforeRunsAtTheSameTime(t *testing.T) {
	w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
	exec := func(sql string, args ...any) int {
		t.Helper()
		tag, err := w.pool.Exec(t.Context(), sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		return int(tag.RowsAffected())
	}
	before := func() int {
		t.Helper()
		return exec(`
			WITH due AS MATERIALIZED (
				SELECT merchant_id, id FROM sagas
				WHERE due_at <= now() AND paused_at IS NULL AND (attempts > 0) = false
					AND (definition, version) IN (SELECT * FROM unnest('{test}'::text[], '{1}'::int[]))
				ORDER BY due_at LIMIT 10 FOR UPDATE SKIP LOCKED)
			UPDATE sagas s SET epoch = s.epoch + 1, owner = 'before', due_at = now() + interval '1 hour', updated_at = now()
			FROM due WHERE s.merchant_id = due.merchant_id AND s.id = due.id`)
	}
	now := time.Now()
	w.Now = func() time.Time { now = now.Add(sweepEvery); return now }
	after := func() int {
		t.Helper()
		claimed, err := w.claim(t.Context(), maxClaim, maxClaim)
		if err != nil {
			t.Fatal(err)
		}
		return len(claimed)
	}
	claims := func(what string, byBefore, byAfter int) {
		t.Helper()
		if b := before(); b != byBefore {
			t.Errorf("%s: the version before claimed %d", what, b)
		}
		if a := after(); a != byAfter {
			t.Errorf("%s: this version claimed %d", what, a)
		}
	}
	claims("this version holds it", 0, 0)
	exec(`UPDATE sagas SET due_at = now()`)
	claims("the lease of this version ended", 1, 0)
	exec(`UPDATE sagas SET due_at = now()`)
	if n := after(); n != 1 {
		t.Errorf("the lease of the version before ended: this version claimed %d", n)
	}
	exec(`UPDATE sagas SET owner = NULL, due_at = now()`)
	claims("this version gave it back", 1, 0)
	exec(`UPDATE sagas SET owner = 'before', due_at = clock_timestamp() + interval '7 seconds'`)
	claims("the version before saved it", 0, 0)
	exec(`UPDATE sagas SET owner = NULL, due_at = now()`)
	if n := after(); n != 1 {
		t.Errorf("the version before gave it back: this version claimed %d", n)
	}
	exec(`UPDATE sagas SET owner = NULL, due_at = now(), paused_at = now()`)
	claims("it is paused", 0, 0)
	exec(`UPDATE sagas SET paused_at = NULL`)
	if n := after(); n != 1 {
		t.Errorf("the version before resumed it: this version claimed %d", n)
	}
	exec(`INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, data, abortable, due_at)
		VALUES ('mer_1', 'sag_2', 'test', 1, 'ord_2', 'running', 'reserve', '{}', true, now())`)
	if n := after(); n != 1 {
		t.Errorf("the version before began one: this version claimed %d", n)
	}
}
