package saga

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A saga that neither ends nor asks for a person shows by the age of its step; one
// that has a reason to stand still does not.
func TestTheAgeOfAStepIsMeasured(t *testing.T) {
	w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
	for set, old := range map[string]bool{
		`resolving = true, tries = 40`: true,
		`paused_at = now()`:            false,
		`awaiting = true`:              false,
		`state = 'parked', parked_from = 'running', parked = '{}', due_at = NULL`: false,
	} {
		if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET step_since = now() - interval '1 hour', state = 'running', parked = NULL, parked_from = NULL,
			paused_at = NULL, awaiting = false, due_at = now()`); err != nil {
			t.Fatal(err)
		}
		if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET `+set); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Measure(t.Context()); err != nil {
			t.Fatal(err)
		}
		if age := testutil.ToFloat64(w.metrics.stepAge.WithLabelValues("test", "reserve")); (age >= 3600) != old {
			t.Errorf("%s: %v s", set, age)
		}
	}
}
