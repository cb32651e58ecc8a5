package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// OldestUnpublished is the age of the oldest committed message that no
// checkpoint covers, by the database's clock; 0 if there is none. It looks at
// the table and at what is written down, not at what this relay believes, and is
// right in any process. Of the messages behind the window it takes the oldest
// transaction's first, so that a long backlog costs no more than a short one.
func (r *Relay) OldestUnpublished(ctx context.Context) (time.Duration, error) {
	var seconds float64
	err := r.pool.QueryRow(ctx, `
		WITH relay AS MATERIALIZED (
			SELECT done, page_snapshot, page_position, coalesce(page_snapshot, done) AS seen
			FROM (SELECT) always LEFT JOIN outbox_relays ON name = $1
		), seen AS MATERIALIZED (
			SELECT coalesce(seen, $2::pg_snapshot) AS seen, done, page_snapshot, page_position FROM relay
		)
		SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(created_at)), 0), 0)::float8
		FROM seen, LATERAL (
			(SELECT created_at FROM outbox WHERE xid >= pg_snapshot_xmax(seen) ORDER BY xid, position LIMIT 1)
			UNION ALL
			SELECT created_at FROM outbox WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(seen)))
			UNION ALL
			(SELECT created_at FROM outbox
			WHERE page_snapshot IS NOT NULL AND position > page_position
				AND pg_visible_in_snapshot(xid, page_snapshot) AND NOT pg_visible_in_snapshot(xid, done)
			ORDER BY position LIMIT 1)
		) oldest`, r.Name, unpublished).Scan(&seconds)
	if err != nil {
		return 0, fmt.Errorf("measure the oldest unpublished message: %w", err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// Newest is the message committed last, as far as positions tell, and its age by
// the database's clock. The id is empty when there is none.
func Newest(ctx context.Context, pool *pgxpool.Pool) (id string, age time.Duration, err error) {
	var seconds float64
	err = pool.QueryRow(ctx, `
		SELECT id, greatest(extract(epoch FROM clock_timestamp() - created_at), 0)::float8
		FROM outbox ORDER BY position DESC LIMIT 1`).Scan(&id, &seconds)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", 0, fmt.Errorf("look for the newest message: %w", err)
	}
	return id, time.Duration(seconds * float64(time.Second)), nil
}
