package saga

import (
	"context"
	"fmt"
)

const (
	// clockSlack is more than the clocks of one database differ while a transaction runs.
	clockSlack = "5 seconds"
	// restartAtOnce bounds one statement.
	restartAtOnce = 1000
)

// restartWaits is for a database whose clock was set back (a failover to a machine that is
// behind, a corrected clock). A saga that was saved before that was saved in the future,
// and its retry or the end of its lease lies that much too late: a dead worker's sagas
// would wait for an hour. Each such wait begins again now, with its own length. That cuts
// no lease short: its holder believes in a length from an earlier moment, by its own clock.
func (w *Worker) restartWaits(ctx context.Context) error {
	// sagas_not_ended serves it. A saga that is awaited has its time from outside.
	tag, err := w.pool.Exec(ctx, `
		UPDATE sagas SET due_at = now() + (due_at - updated_at), in_flight_until = now() + (in_flight_until - updated_at), updated_at = now()
		WHERE id IN (
			SELECT id FROM sagas
			WHERE state IN ('running', 'compensating') AND due_at IS NOT NULL AND NOT awaiting AND updated_at > now() + $1::interval
			ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)`, clockSlack, restartAtOnce)
	if err != nil {
		return fmt.Errorf("restart the waits of sagas: %w", err)
	}
	if n := tag.RowsAffected(); n > 0 {
		w.Log.WarnContext(ctx, "the database's clock was set back: waits of sagas begin again", "sagas", n)
	}
	return nil
}
