package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// OldestUnpublished is the age of the oldest committed message that no checkpoint
// covers, by the database's clock; 0 if there is none. It looks at the table and at
// what is written down, not at what any relay believes, and is right in any
// process. Of the messages that a cursor has not seen it takes the oldest
// transaction's first, so that a long backlog costs no more than a short one; shards at the same
// cursor are looked at together, so that one without messages does not walk through the others'.
func OldestUnpublished(ctx context.Context, pool *pgxpool.Pool) (time.Duration, error) {
	var seconds float64
	err := pool.QueryRow(ctx, `
		WITH cursors AS MATERIALIZED (
			SELECT array_agg(shard) AS shards, (SELECT count(*)::int FROM outbox_shards) AS n, done::text::pg_snapshot AS done,
				page::pg_snapshot AS page, coalesce(page, done::text)::pg_snapshot AS seen, position
			FROM (SELECT shard, coalesce(done::text, $1) AS done, page_snapshot::text AS page, page_position AS position FROM outbox_cursors) c
			GROUP BY done, page, position
		)
		SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(created_at)), 0), 0)::float8
		FROM cursors c, LATERAL (
			(SELECT created_at FROM outbox
			WHERE xid >= pg_snapshot_xmax(seen) AND key_hash % c.n = ANY (c.shards) ORDER BY xid, position LIMIT 1)
			UNION ALL
			(SELECT created_at FROM outbox
			WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(seen))) AND key_hash % c.n = ANY (c.shards) LIMIT 1)
			UNION ALL
			(SELECT created_at FROM outbox
			WHERE c.page IS NOT NULL AND position > c.position AND key_hash % c.n = ANY (c.shards)
				AND pg_visible_in_snapshot(xid, c.page) AND NOT pg_visible_in_snapshot(xid, c.done)
			ORDER BY position LIMIT 1)
		) oldest`, firstSnapshot).Scan(&seconds)
	if err != nil {
		return 0, fmt.Errorf("measure the oldest unpublished message: %w", err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// Holder is what keeps the database from removing dead rows, and the relays from
// passing a partition.
type Holder struct {
	// By is session, prepared (a prepared transaction) or slot (replication).
	By string
	// Name is the session's process id, the transaction's or the slot's name.
	Name string
	// Age of the transaction; of a slot, for which none is known, that of the oldest
	// unfinished one that it might wait for is not told, and Age is 0.
	Age time.Duration
}

// XminHolders are the oldest of each kind. Sessions of other roles are seen by a
// member of pg_read_all_stats only.
func XminHolders(ctx context.Context, pool *pgxpool.Pool) ([]Holder, error) {
	rows, err := pool.Query(ctx, `
		(SELECT 'session', pid::text, greatest(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8
		FROM pg_stat_activity
		WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
		ORDER BY xact_start LIMIT 1)
		UNION ALL
		(SELECT 'prepared', gid, greatest(extract(epoch FROM clock_timestamp() - prepared), 0)::float8
		FROM pg_prepared_xacts ORDER BY prepared LIMIT 1)
		UNION ALL
		(SELECT 'slot', slot_name::text, 0 FROM pg_replication_slots
		WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL ORDER BY age(coalesce(xmin, catalog_xmin)) DESC LIMIT 1)`)
	if err != nil {
		return nil, fmt.Errorf("look for what holds xmin: %w", err)
	}
	holders, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Holder, err error) {
		var seconds float64
		err = row.Scan(&h.By, &h.Name, &seconds)
		h.Age = time.Duration(seconds * float64(time.Second))
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for what holds xmin: %w", err)
	}
	return holders, nil
}

// tell is the age from which what holds xmin is logged by its name.
const tell = 30 * time.Second

// countLost is the time between two counts of the lost messages.
const countLost = 10 * time.Second

// measure sets the gauges, at r.measured. While the age cannot be measured, the last known one grows with time.
func (r *Relay) measure(ctx context.Context) error {
	age, err := OldestUnpublished(ctx, r.pool)
	switch now := r.measured; {
	case err == nil:
		r.age, r.ageAt = age, now
		r.metrics.oldest.WithLabelValues().Set(age.Seconds())
	case !r.ageAt.IsZero():
		r.metrics.oldest.WithLabelValues().Set((r.age + now.Sub(r.ageAt)).Seconds())
	}
	holders, herr := XminHolders(ctx, r.pool)
	if herr == nil {
		r.metrics.held.Reset()
		for _, h := range holders {
			r.metrics.held.WithLabelValues(h.By).Set(h.Age.Seconds())
			if h.Age >= tell && r.Now().Sub(r.told) >= tell {
				r.told = r.Now()
				r.Log.WarnContext(ctx, "an old transaction is open", "by", h.By, "name", h.Name, "age", h.Age)
			}
		}
	}
	var lerr error
	if now := r.Now(); now.Sub(r.counted) >= countLost {
		var lost int64
		if lerr = r.pool.QueryRow(ctx, `SELECT count(*) FROM outbox_lost WHERE settled_at IS NULL`).Scan(&lost); lerr == nil {
			r.counted = now
			r.metrics.lost.WithLabelValues().Set(float64(lost))
		}
	}
	return errors.Join(err, herr, lerr)
}
