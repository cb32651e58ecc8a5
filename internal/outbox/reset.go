package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
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

// Reset makes checkpoints of the server that the pool leads to.
//
// If the checkpoints are another server's, the last one of each shard still proves which messages
// were published: those that its snapshot sees, up to the position at which it had seen every
// writer. They stay published, and all others are published again. The messages get new
// transaction ids, so that the pool's role has to own the tables.
//
// A from that is not zero publishes again what was made at this time or later. It does so on the
// same server, too. Relays that run lose their shards, and take them again.
func Reset(ctx context.Context, pool *pgxpool.Pool, from time.Time) (done ResetDone, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// It reads all messages. No claim and no other reset comes between.
		if _, err := tx.Exec(ctx, `
			SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
			LOCK TABLE outbox_shards IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return fmt.Errorf("lock the shards: %w", err)
		}
		here, all, err := readCheckpoints(ctx, tx)
		if err != nil {
			return err
		}
		done.Server = here
		proven := true
		for _, s := range all {
			proven = proven && s.Proven && (s.Server == nil || s.Server.Timeline <= here.Timeline)
		}
		ahead, err := messagesAhead(ctx, tx)
		if err != nil {
			return err
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

// moved gives every message a transaction id of this server. A message that was committed here
// since the restore has a higher position than all that came with the dump, so that no checkpoint
// of the dump proves it.
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
		zeronull.Timestamptz(from), seenElsewhere).Scan(&d.Again, &d.Kept)
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

// rewind sets each shard back to the first message of the time. What the shard has not published
// stays as it is. What it has published becomes a window once more, which begins with nothing
// and ends where the shard stands; its messages before the first one of the time count as
// published.
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
		FROM stand JOIN next n USING (shard), first`, from, firstSnapshot, here.SystemIdentifier, here.Timeline)
	if err != nil {
		return fmt.Errorf("set the shards back: %w", err)
	}
	return nil
}
