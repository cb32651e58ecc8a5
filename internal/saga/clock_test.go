package saga

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The database's clock is set back by an hour. A retry that waited then, and a saga of a
// worker that died, go on after as long as they would have waited; what waits for a merchant
// keeps its time.
func TestSagasGoOnAfterTheClockWentBack(t *testing.T) {
	w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
	for set, most := range map[string]time.Duration{
		`due_at = now() + interval '5 seconds'`:                                                     5 * time.Second,
		`due_at = now() + interval '7 seconds', owner = 'dead'`:                                     7 * time.Second,
		`due_at = now() + interval '5 seconds', in_flight_until = now() + interval '4 seconds'`:     5 * time.Second,
		`due_at = now() - interval '1 second'`:                                                      0,
		`due_at = now() + interval '6 days', awaiting = true`:                                       6*24*time.Hour + time.Hour,
		`due_at = NULL, state = 'parked', parked = '{}', parked_from = 'running', awaiting = false`: 0,
	} {
		if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET state = 'running', parked = NULL, parked_from = NULL, paused_at = NULL, awaiting = false, owner = NULL,
			in_flight_until = NULL, due_at = now(), updated_at = now()`); err != nil {
			t.Fatal(err)
		}
		if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET updated_at = now(), `+set); err != nil {
			t.Fatal(err)
		}
		// = the clock goes back
		if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET due_at = due_at + interval '1 hour', in_flight_until = in_flight_until + interval '1 hour',
			updated_at = updated_at + interval '1 hour'`); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Measure(t.Context()); err != nil {
			t.Fatal(err)
		}
		var wait, flight time.Duration
		if err := w.pool.QueryRow(t.Context(), `SELECT coalesce(max(due_at) - now(), '0'), coalesce(max(in_flight_until) - now(), '0') FROM sagas`).Scan(&wait, &flight); err != nil {
			t.Fatal(err)
		}
		if wait > most || wait < most-time.Minute || flight > 4*time.Second {
			t.Errorf("%s: it waits for %s, want at most %s; what is in flight is waited for for %s", set, wait, most, flight)
		}
	}
}
