package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrNothingToReset: every checkpoint is of the server that was asked, and no time was given.
var ErrNothingToReset = errors.New("every checkpoint is of this database server: there is nothing to reset")

// ErrNotOwner: only the owner of the outbox may rewrite its messages' transaction ids.
var ErrNotOwner = errors.New("it has to be done as the owner of the table outbox")

// seenElsewhere is the transaction id of a message that was published on another server, and
// afterElsewhere a snapshot that sees those and none that this server has given out.
const (
	seenElsewhere  = "2"
	afterElsewhere = "3:3:"
)

// ResetDone is what a reset has made.
type ResetDone struct {
	Server Server
	// Again is how many messages are published once more, or for the first time, and Kept how
	// many of them count as published still. Zero after a reset to a time, which counts nothing.
	Again, Kept int64
}

// Reset makes checkpoints for the server that the pool leads to. On another server than the
// one of the checkpoints, what the last of them proves stays published: the messages that its snapshot sees, up
// to the position up to which it saw every writer. All others are published again. from, unless it is
// zero, publishes again what was made at this time or later, too; that needs no other server. Relays that
// live lose their shards and take them again. On another server the pool has to be the
// tables' owner, since the messages' transaction ids are rewritten.
func Reset(ctx context.Context, pool *pgxpool.Pool, from time.Time) (done ResetDone, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// It reads all messages. No claim and no other reset comes between.
		if _, err := tx.Exec(ctx, `
			SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
			LOCK TABLE outbox_shards IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return fmt.Errorf("lock the shards: %w", err)
		}
		here, all, err := readStandings(ctx, tx)
		if err != nil {
			return err
		}
		done.Server = here
		proven := true
		for _, s := range all {
			proven = proven && s.Proven && (s.Server == nil || s.Server.Timeline <= here.Timeline)
		}
		var ahead bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM outbox WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))`).Scan(&ahead); err != nil {
			return fmt.Errorf("look for messages of another server: %w", err)
		}
		switch {
		case !proven || ahead:
			return done.moved(ctx, tx, from)
		case !from.IsZero():
			return rewind(ctx, tx, here, from)
		}
		return ErrNothingToReset
	})
	if err != nil {
		return ResetDone{}, fmt.Errorf("reset the outbox: %w", err)
	}
	return done, nil
}

// moved gives every message a transaction id that means something on this server. A message that was
// committed here since the restore has a position beyond all that came with it, and so beyond from of each checkpoint.
func (d *ResetDone) moved(ctx context.Context, tx pgx.Tx, from time.Time) error {
	var owner bool
	if err := tx.QueryRow(ctx, `SELECT has_table_privilege('outbox', 'UPDATE')`).Scan(&owner); err != nil {
		return fmt.Errorf("look who owns the outbox: %w", err)
	}
	if !owner {
		return ErrNotOwner
	}
	err := tx.QueryRow(ctx, `
		WITH proof AS MATERIALIZED (
			SELECT s.shard, c.done, c.page_position AS upto FROM outbox_shards s LEFT JOIN LATERAL (
				SELECT done, page_position FROM outbox_checkpoints k WHERE k.shard = s.shard AND page_snapshot IS NULL AND page_position > 0
				ORDER BY epoch DESC, n DESC LIMIT 1) c ON true
		), moved AS (
			UPDATE outbox o SET xid = CASE WHEN coalesce(o.position <= p.upto AND pg_visible_in_snapshot(o.xid, p.done), false)
					AND ($1::timestamptz IS NULL OR o.created_at < $1) THEN $2::xid8 ELSE pg_current_xact_id() END
			FROM proof p WHERE p.shard = o.key_hash % (SELECT count(*)::int FROM outbox_shards)
			RETURNING o.xid
		)
		SELECT count(*) FILTER (WHERE xid <> $2::xid8), count(*) FILTER (WHERE xid = $2::xid8) FROM moved`,
		timeOrNull(from), seenElsewhere).Scan(&d.Again, &d.Kept)
	if err != nil {
		return fmt.Errorf("rewrite the messages' transaction ids: %w", err)
	}
	// Whoever drew a position of a closed partition did so before now.
	if _, err := tx.Exec(ctx, `
		UPDATE outbox_partitions SET closed_xid = pg_current_xact_id() WHERE closed_xid IS NOT NULL AND dropped_at IS NULL`); err != nil {
		return fmt.Errorf("rewrite the partitions' transaction ids: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		WITH next AS (UPDATE outbox_shards SET owner = NULL, epoch = epoch + 1 RETURNING shard, epoch)
		INSERT INTO outbox_checkpoints (shard, epoch, done, system_identifier, timeline)
		SELECT shard, epoch, $1::pg_snapshot, $2, $3 FROM next`, afterElsewhere, d.Server.SystemIdentifier, d.Server.Timeline); err != nil {
		return fmt.Errorf("make checkpoints: %w", err)
	}
	return nil
}

// rewind sets each shard back to the first message of the time. It leaves what the shard has
// not published, and begins a window of what it has: from nothing to where it stands, whose first messages,
// up to the position before that one, are published.
func rewind(ctx context.Context, tx pgx.Tx, here Server, from time.Time) error {
	_, err := tx.Exec(ctx, `
		WITH first AS MATERIALIZED (
			SELECT coalesce(min(position), pg_sequence_last_value('outbox_position') + 1, 1) AS position FROM outbox WHERE created_at >= $1
		), stand AS MATERIALIZED (
			SELECT * FROM outbox_cursors WHERE done IS NOT NULL
		), next AS (
			UPDATE outbox_shards s SET owner = NULL, epoch = s.epoch + 1 FROM stand WHERE stand.shard = s.shard RETURNING s.shard, s.epoch
		)
		INSERT INTO outbox_checkpoints (shard, epoch, done, page_snapshot, page_position, page_end, system_identifier, timeline)
		SELECT shard, n.epoch, $2::pg_snapshot, coalesce(page_snapshot, done),
			least(CASE WHEN page_snapshot IS NOT NULL THEN page_position END, first.position - 1),
			coalesce(pg_sequence_last_value('outbox_position'), 0), $3, $4
		FROM stand JOIN next n USING (shard), first`, from, firstSight, here.SystemIdentifier, here.Timeline)
	if err != nil {
		return fmt.Errorf("set the shards back: %w", err)
	}
	return nil
}

func timeOrNull(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}
