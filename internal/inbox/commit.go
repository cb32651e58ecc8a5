package inbox

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"payments/internal/postgres"
)

// saveProgress touches no row once a later generation has been here, and none that
// stands before $10, up to which this process knows that all is taken in: then the
// database was restored from a backup meanwhile. A row that is further is of a commit
// whose answer was lost.
const saveProgress = `
	UPDATE inbox_offsets SET next_offset = $5, last_id = $6, tried_from = $7, tried_until = $8, attempts = $9, updated_at = now()
	WHERE consumer = $1 AND topic = $2 AND partition = $3 AND generation = $4 AND ($10::bigint IS NULL OR next_offset >= $10)`

func fenced(tag pgconn.CommandTag, err error) error {
	if err == nil && tag.RowsAffected() == 0 {
		return ErrFenced
	}
	return err
}

type outcome struct {
	taken                      int
	applied, duplicate, parked int
	faults                     []fault
	stopped                    error // of the message behind the taken ones
	progress                   progress
}

type fault struct {
	message Message
	err     error
}

// commit takes the batch in, as far as it comes, in one transaction: ids,
// effects, parked messages and the offset. exhausted, when set, parks the
// batch's only message untried.
func (in *Inbox) commit(ctx context.Context, p *position, batch []Message, exhausted error) (out outcome, err error) {
	complete := false // all but the commit
	err = postgres.InTx(ctx, in.pool, func(tx pgx.Tx) error {
		s := &sieve{in: in, tx: tx, batch: batch, attempts: p.progress.attemptsOf, exhausted: exhausted, taken: len(batch)}
		if err := s.enter(ctx, p); err != nil {
			return err
		}
		if err := s.sift(ctx); err != nil {
			return err
		}
		if err := s.leave(ctx); err != nil {
			return err
		}
		out = s.outcome()
		out.progress = p.progress
		if s.taken > 0 {
			out.progress = p.progress.passed(batch[s.taken-1])
		}
		if out.stopped != nil {
			out.progress = p.progress.failedAt(batch[s.taken].Offset, out.progress)
		}
		g := out.progress
		err := fenced(tx.Exec(ctx, saveProgress, in.consumer, p.topic, p.partition, p.generation, g.next, g.last, g.from, g.until, g.attempts, p.progress.next))
		complete = err == nil
		return err
	})
	if complete && err != nil {
		err = &commitError{err}
	}
	return out, err
}
