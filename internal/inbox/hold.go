package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// releaseTimeout is how long what is left of an attempt may take when its context has ended.
	releaseTimeout = 2 * time.Second
	// idleTimeout ends the session of a process that stands still between the record of an
	// attempt and its transaction; inside of the transaction the pool's own setting does.
	idleTimeout = "5s"
)

// hold is the session of one attempt. From before the attempt is on record until its outcome
// is, the session has the partitions' locks, for which a claim waits. Without them a process
// that loses a partition between the two would look to its heir as if it had died, and the
// messages as if they had killed it. The locks end with the session, so that a process that
// has died holds up nobody.
type hold struct {
	pool   *pgxpool.Pool
	conn   *pgxpool.Conn
	locked bool
}

func (in *Inbox) hold(ctx context.Context) (*hold, error) {
	conn, err := in.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connection for an attempt: %w", err)
	}
	return &hold{pool: in.pool, conn: conn}, nil
}

// lockKeySQL is the lock of a partition, of the columns of p, for the consumer $1.
const lockKeySQL = `hashtextextended(format('inbox_offsets %s %s/%s', $1::text, p.topic, p.partition), 0)`

// notDurable: the transaction is not waited for. A record is a count, which a crash of the
// database may take back.
const notDurable = `set_config('synchronous_commit', 'off', true)`

// byIndex has the attempt's statements find rows by indexes, as postgres.OpenEngine does: with
// the statistics of a young table the planner would read all of it.
const (
	byIndex = `set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
		set_config('plan_cache_mode', 'force_generic_plan', false)`
	resetByIndex = `RESET enable_seqscan; RESET enable_hashjoin; RESET enable_mergejoin; RESET plan_cache_mode;`
)

// queueLock begins the record of an attempt. It takes the locks in one order, so that two processes cannot deadlock.
func (h *hold) queueLock(b *pgx.Batch, consumer string, hand []*part) {
	h.locked = true
	var topics []string
	var partitions []int32
	for _, p := range hand {
		topics, partitions = append(topics, p.topic), append(partitions, int32(p.partition)) //nolint:gosec // Kafka's partitions are int32
	}
	b.Queue(`
		SELECT pg_advisory_lock(l.key), set_config('idle_session_timeout', '`+idleTimeout+`', false), `+byIndex+`, `+notDurable+` FROM (
			SELECT DISTINCT `+lockKeySQL+` AS key FROM unnest($2::text[], $3::int[]) AS p (topic, partition) ORDER BY key) AS l`,
		consumer, topics, partitions)
}

// queueUnlock gives the locks back, at once and not only when the transaction commits.
func queueUnlock(b *pgx.Batch) {
	b.Queue(`DO $$ BEGIN PERFORM pg_advisory_unlock_all(); RESET idle_session_timeout; ` + resetByIndex + ` END $$`)
}

// queueWait waits for the end of the attempt that has the partition in hand, and lets none
// begin before the batch has ended.
func queueWait(b *pgx.Batch, consumer string, at partitionKey) {
	b.Queue(`SELECT pg_advisory_xact_lock(`+lockKeySQL+`) FROM (VALUES ($2::text, $3::int)) AS p (topic, partition)`, consumer, at.topic, at.partition)
}

type sender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// sender is the hold's session, or the pool if that has been lost.
func (h *hold) sender() sender {
	if h.conn.Conn().IsClosed() {
		return h.pool
	}
	return h.conn
}

// release gives back what the attempt's transaction has not.
func (h *hold) release(ctx context.Context) {
	defer h.conn.Release()
	if !h.locked || h.conn.Conn().IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var b pgx.Batch
	queueUnlock(&b)
	if err := h.conn.SendBatch(ctx, &b).Close(); err != nil {
		_ = h.conn.Conn().Close(ctx) // the locks end with it
	}
}
