package readmodel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// insertFed is insertTimeline for the projector: it tells which lines stand in no feed
// yet, for Finish.
const insertFed = `
	INSERT INTO payment_timeline AS t (merchant_id, payment_id, sequence, event_id, type, data, occurred_at, fed)
	SELECT merchant_id, payment_id, sequence, event_id, type,
		` + lineData + `, occurred_at, true
	FROM json_to_recordset($1::json) AS e (merchant_id text, payment_id text, sequence bigint, event_id text, type text,
		data jsonb, occurred_at timestamptz)
	ON CONFLICT (merchant_id, payment_id, sequence) DO UPDATE SET fed = true WHERE NOT t.fed
	RETURNING merchant_id, payment_id, sequence`

// feed gives each line the next position of its merchant's feed, in order. The merchants'
// heads are locked in one order, so that two projectors cannot deadlock.
const feed = `
	WITH line AS MATERIALIZED (
		SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS l (merchant_id, payment_id, sequence, n)),
	head AS (
		INSERT INTO feed_heads AS h (merchant_id, position)
		SELECT merchant_id, count(*) FROM line GROUP BY merchant_id ORDER BY merchant_id
		ON CONFLICT (merchant_id) DO UPDATE SET position = h.position + excluded.position
		RETURNING merchant_id, position)
	INSERT INTO feed_events (merchant_id, position, payment_id, sequence)
	SELECT merchant_id, h.position - row_number() OVER (PARTITION BY merchant_id ORDER BY l.n DESC) + 1, payment_id, sequence
	FROM line l JOIN head h USING (merchant_id)`

// line is a primary key of payment_timeline.
type line struct {
	merchantID, paymentID string
	sequence              int64
}

// leaveLines reads the lines that stand in no feed yet and leaves each in its message;
// at says where that is in the batch.
func leaveLines(batch []inbox.Message, at map[line]int) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var l line
		_, err := pgx.ForEachRow(rows, []any{&l.merchantID, &l.paymentID, &l.sequence}, func() error {
			batch[at[l]].Left = l
			return nil
		})
		return err
	}
}

// Finish is inbox.Config's: one statement puts the new lines of all partitions into their
// merchants' feeds. It comes last in its transaction, since each merchant's head stays
// locked until the commit.
func (p *Projector) Finish(ctx context.Context, tx pgx.Tx, applied []inbox.Message) error {
	var merchants, payments []string
	var sequences []int64
	for _, m := range applied {
		if l, ok := m.Left.(line); ok {
			merchants, payments, sequences = append(merchants, l.merchantID), append(payments, l.paymentID), append(sequences, l.sequence)
		}
	}
	if len(merchants) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, feed, merchants, payments, sequences); err != nil {
		return fmt.Errorf("feed %d events: %w", len(merchants), err)
	}
	return nil
}

// FeedEvent is an event at its position in its merchant's feed, or, of one payment's
// events, at its sequence. Of one whose line a person has removed from the timeline
// the position alone is left.
type FeedEvent struct {
	Position int64
	payment.Event
}

// FeedCursor is an event's position in a feed, and which event it is: the positions of a
// database that came back without its last commits are given to other events. Without
// an id, the position alone counts.
type FeedCursor struct {
	Position int64
	EventID  string
}

// Cursor is behind the event.
func (e FeedEvent) Cursor() FeedCursor { return FeedCursor{e.Position, e.ID} }

// ErrFeedExpired: what stood behind the cursor is no longer kept, its event is gone, or
// the feed has never come so far, as after a restore from a backup.
var ErrFeedExpired = errors.New("the feed does not hold what follows this position")

// FeedHead is the newest event of the merchant's feed; the zero cursor without any.
func (q *Queries) FeedHead(ctx context.Context, merchantID string) (head FeedCursor, err error) {
	rows, err := postgres.Query(ctx, q.pool, `
		SELECT h.position, coalesce(t.event_id, '') FROM feed_heads h
			LEFT JOIN feed_events f ON f.merchant_id = h.merchant_id AND f.position = h.position
			LEFT JOIN payment_timeline t ON t.merchant_id = f.merchant_id AND t.payment_id = f.payment_id AND t.sequence = f.sequence
		WHERE h.merchant_id = $1`, merchantID)
	if err == nil {
		head, err = pgx.CollectOneRow(rows, pgx.RowToStructByPos[FeedCursor])
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return FeedCursor{}, fmt.Errorf("read the feed's head: %w", err)
	}
	return head, nil
}

// Feed is what follows a cursor in the merchant's feed, at most limit events, in
// order and without a gap; none means that there is nothing yet. Errors: ErrFeedExpired.
func (q *Queries) Feed(ctx context.Context, merchantID string, after FeedCursor, limit int) ([]FeedEvent, error) {
	// One statement, and so one snapshot of the head, of the cursor's event and of what follows.
	rows, err := postgres.Query(ctx, q.pool, `
		SELECT h.position, f.position, coalesce(t.event_id, ''), coalesce(t.type, ''), coalesce(t.sequence, 0), coalesce(t.occurred_at, 'epoch'), coalesce(t.data, '{}')
		FROM feed_heads h LEFT JOIN LATERAL (
			SELECT f.position, f.payment_id, f.sequence FROM feed_events f
			WHERE f.merchant_id = h.merchant_id AND f.position >= $2 ORDER BY f.position LIMIT $3 + 1) f ON true
			LEFT JOIN payment_timeline t ON t.merchant_id = h.merchant_id AND t.payment_id = f.payment_id AND t.sequence = f.sequence
		WHERE h.merchant_id = $1
		ORDER BY f.position`, merchantID, after.Position, limit)
	if err != nil {
		return nil, fmt.Errorf("read the feed: %w", err)
	}
	var (
		head    int64
		at      *int64
		next    = after.Position
		gap     bool
		another bool
		e       FeedEvent
		events  []FeedEvent
	)
	_, err = pgx.ForEachRow(rows, []any{&head, &at, &e.ID, &e.Type, &e.Sequence, &e.At, &e.Data}, func() error {
		switch {
		case at == nil:
		case *at == after.Position:
			another = after.EventID != "" && e.ID != "" && e.ID != after.EventID
		case len(events) < limit:
			next++
			gap = gap || *at != next
			e.Position, e.At = *at, e.At.UTC()
			events = append(events, e)
		}
		e.Data = payment.EventData{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the feed: %w", err)
	}
	if gap || another || len(events) == 0 && head != after.Position {
		return nil, ErrFeedExpired
	}
	return events, nil
}

// EventsOf is what follows an event of a payment, by its sequence, at most limit.
// Errors: ErrFeedExpired, when another event has the cursor's sequence.
func (q *Queries) EventsOf(ctx context.Context, merchantID, paymentID string, after FeedCursor, limit int) ([]FeedEvent, error) {
	rows, err := postgres.Query(ctx, q.pool, `
		SELECT t.sequence, t.event_id, t.type, t.sequence, t.occurred_at, t.data FROM payment_timeline t
		WHERE t.merchant_id = $1 AND t.payment_id = $2 AND t.sequence >= $3 ORDER BY t.sequence LIMIT $4 + 1`, merchantID, paymentID, after.Position, limit)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e FeedEvent, err error) {
		err = row.Scan(&e.Position, &e.ID, &e.Type, &e.Sequence, &e.At, &e.Data)
		e.At = e.At.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	if len(events) > 0 && events[0].Position == after.Position {
		if after.EventID != "" && events[0].ID != after.EventID {
			return nil, ErrFeedExpired
		}
		events = events[1:]
	}
	return events[:min(limit, len(events))], nil
}

// ReapFeeds deletes the oldest events of the feeds, at most limit of each merchant;
// again means that there may be more. The timeline keeps them.
func ReapFeeds(ctx context.Context, pool *pgxpool.Pool, olderThan time.Duration, limit int) (again bool, err error) {
	// By the primary key, from each feed's lowest position on. Times within a feed are
	// those of transactions' beginnings, and out of order by a transaction's length: the
	// lowest that is young keeps what lies above it.
	tag, err := pool.Exec(ctx, `
		DELETE FROM feed_events f USING feed_heads h CROSS JOIN LATERAL (
			SELECT fed_at FROM feed_events WHERE merchant_id = h.merchant_id ORDER BY position LIMIT 1) first CROSS JOIN LATERAL (
			SELECT max(o.position) FILTER (WHERE o.old) AS last FROM (
				SELECT position, bool_and(fed_at < now() - $1::interval) OVER (ORDER BY position) AS old FROM (
					SELECT position, fed_at FROM feed_events WHERE merchant_id = h.merchant_id ORDER BY position LIMIT $2) lowest) o) o
		WHERE first.fed_at < now() - $1::interval AND f.merchant_id = h.merchant_id AND f.position <= o.last`, olderThan, limit)
	if err != nil {
		return false, fmt.Errorf("reap feeds: %w", err)
	}
	return tag.RowsAffected() >= int64(limit), nil
}
