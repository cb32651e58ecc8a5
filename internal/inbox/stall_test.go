package inbox

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// A process that is stopped for longer than idle_in_transaction_session_timeout in the
// middle of a transaction loses its session (25P03). That lies in no message: it must
// cost none an attempt, and the database is to be asked again.
func TestAStallOfTheProcessIsNotCountedAgainstTheMessage(t *testing.T) {
	pool := database(t)
	stalls := 0
	in := restart(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		if m.Headers[HeaderID] == "a-1" && stalls < 5 {
			stalls++
			// As a stop of the process for 5 s.
			if _, err := tx.Exec(ctx, `SET LOCAL idle_in_transaction_session_timeout = '20ms'`); err != nil {
				return err
			}
			for {
				var there bool
				if err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)`, tx.Conn().PgConn().PID()).Scan(&there); err != nil {
					return err
				}
				if !there {
					break
				}
			}
		}
		return record(ctx, tx, m)
	})
	for range 8 {
		if n, err := in.Apply(t.Context(), 1, []Message{message(1, "a", 1)}); n == 1 || !postgres.Unavailable(err) {
			break
		}
	}
	same(t, "dead letters", deadLetters(t, pool))
	same(t, "effects", effects(t, pool), "a-1")
}
