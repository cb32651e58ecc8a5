package inbox

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// saveProgress touches no row once a later generation has been here, and none that
// stands before the offset up to which this process knows that all is taken in: then the
// database was restored from a backup meanwhile. A row that is further is of a commit
// whose answer was lost. The rows are locked in the order of the partitions, so that two
// processes that hold the same ones during a rebalance cannot deadlock.
const saveProgress = `
	WITH to_save AS MATERIALIZED (
		SELECT * FROM unnest($3::text[], $4::int[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[], $9::int[], $10::text[], $11::bigint[])
			AS s (topic, partition, next_offset, last_id, tried_from, tried_until, attempts, tried_rest, stood)),
	mine AS MATERIALIZED (
		SELECT o.topic, o.partition FROM inbox_offsets o JOIN to_save s USING (topic, partition)
		WHERE o.consumer = $1 AND o.generation = $2 AND (s.stood IS NULL OR o.next_offset >= s.stood)
		ORDER BY o.topic, o.partition FOR UPDATE OF o)
	UPDATE inbox_offsets o SET next_offset = s.next_offset, last_id = s.last_id, tried_from = s.tried_from, tried_until = s.tried_until,
		attempts = s.attempts, tried_rest = s.tried_rest::bigint[], updated_at = now()
	FROM mine m JOIN to_save s USING (topic, partition)
	WHERE o.consumer = $1 AND o.generation = $2 AND o.topic = m.topic AND o.partition = m.partition
	RETURNING o.topic, o.partition`

// progressRow is what one partition's row becomes; stood is how far it stands at least.
type progressRow struct {
	partitionKey
	progress
	stood *int64
}

// queueProgress saves the rows; mine are those that are still of this generation.
func (in *Inbox) queueProgress(b *pgx.Batch, generation int, rows []progressRow, mine *map[partitionKey]bool) {
	n := len(rows)
	topics, partitions, nexts, lasts := make([]string, n), make([]int32, n), make([]*int64, n), make([]*string, n)
	froms, untils, attempts := make([]int64, n), make([]int64, n), make([]int32, n)
	rests, stood := make([]string, n), make([]*int64, n)
	for i, r := range rows {
		head := r.head()
		topics[i], partitions[i], nexts[i], lasts[i] = r.topic, int32(r.partition), r.next, r.last //nolint:gosec // Kafka's partitions are int32
		froms[i], untils[i], attempts[i] = head.from, head.until, int32(head.attempts)             //nolint:gosec // as many as were tried
		rests[i], stood[i] = r.rest(), r.stood
	}
	b.Queue(saveProgress, in.consumer, generation, topics, partitions, nexts, lasts, froms, untils, attempts, rests, stood).Query(scanPartitions(mine))
}

func scanPartitions(found *map[partitionKey]bool) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		*found = map[partitionKey]bool{}
		var at partitionKey
		_, err := pgx.ForEachRow(rows, []any{&at.topic, &at.partition}, func() error {
			(*found)[at] = true
			return nil
		})
		return err
	}
}

type outcome struct {
	of                              []partOutcome // by part
	applied, duplicate, deadLetters int
	dropped                         int // for their age
	faults                          []fault
}

type partOutcome struct {
	taken    int
	stopped  error // of the message behind the taken ones, or ErrFenced
	progress progress
}

type fault struct {
	message Message
	err     error
}

// commit takes in what the parts have in hand, as far as it comes, in one transaction:
// ids, effects, dead letters and the offsets. exhausted, when set, makes the
// only message in hand a dead letter, untried.
func (in *Inbox) commit(ctx context.Context, h *hold, hand []*part, exhausted error) (out outcome, err error) {
	complete, unlocked := false, false // complete: all but the commit
	err = postgres.InTx(ctx, h.conn, func(tx pgx.Tx) error {
		a := &batchApply{in: in, tx: tx, exhausted: exhausted}
		if err := a.enter(ctx, hand); err != nil {
			return err
		}
		if err := a.apply(ctx); err != nil {
			return err
		}
		if err := a.leave(ctx); err != nil {
			return err
		}
		if err := a.closeGaps(ctx); err != nil {
			return err
		}
		out = outcome{applied: len(a.applied), duplicate: a.duplicate, dropped: a.dropped, deadLetters: a.deadLetters, faults: a.faults, of: make([]partOutcome, len(hand))}
		var rows []progressRow
		for i, p := range hand {
			if a.fenced[i] {
				out.of[i].stopped = ErrFenced
				continue
			}
			out.of[i] = a.outcomeOf(i, p)
			rows = append(rows, progressRow{p.partitionKey, out.of[i].progress, p.progress.next})
		}
		if len(rows) == 0 {
			complete = true
			return nil
		}
		var b pgx.Batch
		var mine map[partitionKey]bool
		in.queueProgress(&b, hand[0].generation, rows, &mine)
		queueUnlock(&b) // the rows are locked from here on
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return fmt.Errorf("save offsets: %w", err)
		}
		unlocked = true
		if len(mine) != len(rows) { // enter has locked them
			return fmt.Errorf("save offsets: %w", ErrFenced)
		}
		if err := in.finish(ctx, tx, a.applied); err != nil {
			return &finishError{err}
		}
		complete = true
		return nil
	})
	if complete && err != nil {
		err = &commitError{err}
	}
	if unlocked && err == nil { // a rollback takes the session's setting back
		h.locked = false
	}
	return out, err
}

func (in *Inbox) finish(ctx context.Context, tx pgx.Tx, applied []Message) (err error) {
	if in.Finish == nil || len(applied) == 0 {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = Permanent(fmt.Errorf("the handler's end panicked: %v\n%s", p, debug.Stack()))
		}
	}()
	return in.Finish(ctx, tx, applied)
}
