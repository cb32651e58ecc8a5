package inbox

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// By is who discards and why. Operator is what was acted with, as an API key, and Holder
// the person who has it.
type By struct{ Operator, Holder, Reason string }

func (b By) trimmed() By {
	return By{strings.TrimSpace(b.Operator), strings.TrimSpace(b.Holder), strings.Trim(b.Reason, " ")}
}

func (b By) usable() bool {
	for _, s := range []string{b.Operator, b.Holder, b.Reason} {
		if s == "" || clean(s) != s {
			return false
		}
	}
	return true
}

// Discard takes the first message of a blocked key, or all of them, out of the
// way for good. The first is named by its offset, so that a discard that is asked
// for again, since its answer was lost, takes no other; nil is all. It tells how many wait still. Each leaves a row in
// inbox_discarded that says who did it and why, and its id counts as seen: it is
// not applied when it comes again. The key stays blocked while messages wait.
func (p *DeadLetters) Discard(ctx context.Context, id string, by By, offset *int64) (remaining int64, err error) {
	if by = by.trimmed(); !by.usable() {
		return 0, ErrNoReason
	}
	err = postgres.InTx(ctx, p.pool, func(tx pgx.Tx) (err error) {
		remaining, err = discard(ctx, tx, id, by, offset)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("discard of %s: %w", id, err)
	}
	return remaining, nil
}

func discard(ctx context.Context, tx pgx.Tx, id string, by By, offset *int64) (remaining int64, err error) {
	key, err := lockKey(ctx, tx, id)
	if err != nil {
		return 0, err
	}
	keptFrom, err := lockKept(ctx, tx)
	if err != nil {
		return 0, err
	}
	limit := 1
	if offset == nil {
		limit = replayChunk
	}
	for {
		gone, err := readDeadLetters(ctx, tx, id, limit)
		if err != nil {
			return 0, err
		}
		if offset != nil && (len(gone) == 0 || gone[0].Offset != *offset) {
			return 0, ErrNotFirst
		}
		for _, m := range gone {
			if err := strike(ctx, tx, id, key, m, keptFrom, by); err != nil {
				return 0, err
			}
		}
		remaining, err = removeDeadLetters(ctx, tx, id, gone)
		if err != nil || remaining == 0 {
			return 0, err
		}
		if offset != nil {
			break
		}
	}
	// The next error is not known before the next replay.
	_, err = tx.Exec(ctx, `UPDATE inbox_parked_keys SET fingerprint = $2 WHERE id = $1`, id, fingerprint(errBehind.Error()))
	return remaining, err
}

func strike(ctx context.Context, tx pgx.Tx, id string, key BlockedKey, m DeadLetter, keptFrom time.Time, by By) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO inbox_discarded (parked_key, consumer, topic, partition, "offset", key, headers, value, error, parked_at,
			discarded_by, holder, reason)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		id, key.Consumer, key.Topic, m.Partition, m.Offset, key.Key, m.Headers, m.Value, m.Reason, m.StoredAt, by.Operator, by.Holder, by.Reason)
	switch postgres.Constraint(err) {
	case "inbox_discarded_holder", "inbox_discarded_reason":
		return ErrNoReason
	}
	if err != nil {
		return fmt.Errorf("write the discard down: %w", err)
	}
	messageID, usable := Message{Headers: m.Headers}.id()
	if !usable || forgotten(messageID, keptFrom) {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO inbox_messages (consumer, made_on, message_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		key.Consumer, madeOn(messageID), messageID); err != nil {
		return fmt.Errorf("note the id: %w", err)
	}
	return nil
}

// lockKept is the first day whose ids are kept, until the end of tx.
func lockKept(ctx context.Context, tx pgx.Tx) (day time.Time, err error) {
	var b pgx.Batch
	queueKept(&b, &day)
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return day, fmt.Errorf("read which ids are kept: %w", err)
	}
	return day, nil
}

func queueKept(b *pgx.Batch, day *time.Time) {
	b.Queue(`LOCK TABLE inbox_messages IN ROW EXCLUSIVE MODE`)
	b.Queue(`SELECT kept_from FROM inbox_retention`).QueryRow(func(row pgx.Row) error { return row.Scan(day) })
}
