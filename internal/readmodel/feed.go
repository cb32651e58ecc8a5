package readmodel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// insertFed is insertTimeline for the projector: a line that stands in no feed yet
// gets the next position of its merchant's, in the order of the batch. It comes last
// of all statements, since it holds the merchants' rows until the commit; they are
// locked in one order, so that two projectors cannot deadlock.
const insertFed = `
	WITH e AS MATERIALIZED (
		SELECT * FROM json_to_recordset($1::json) AS e (n int, merchant_id text, payment_id text, sequence bigint, event_id text, type text,
			data jsonb, occurred_at timestamptz)),
	line AS (
		INSERT INTO payment_timeline AS t (merchant_id, payment_id, sequence, event_id, type, data, occurred_at, fed)
		SELECT merchant_id, payment_id, sequence, event_id, type,
			` + lineData + `, occurred_at, true FROM e
		ON CONFLICT (merchant_id, payment_id, sequence) DO UPDATE SET fed = true WHERE NOT t.fed
		RETURNING merchant_id, payment_id, sequence),
	head AS (
		INSERT INTO feed_heads AS h (merchant_id, position)
		SELECT merchant_id, count(*) FROM line GROUP BY merchant_id ORDER BY merchant_id
		ON CONFLICT (merchant_id) DO UPDATE SET position = h.position + excluded.position
		RETURNING merchant_id, position)
	INSERT INTO feed_events (merchant_id, position, payment_id, sequence)
	SELECT merchant_id, h.position - row_number() OVER (PARTITION BY merchant_id ORDER BY e.n DESC) + 1, payment_id, sequence
	FROM line JOIN head h USING (merchant_id) JOIN e USING (merchant_id, payment_id, sequence)`

// FeedEvent is an event at its position in its merchant's feed, or, of one payment's
// events, at its sequence. Of one whose line a person has removed from the timeline
// the position alone is left.
type FeedEvent struct {
	Position int64
	payment.Event
}

// ErrFeedExpired: what stood behind the position is no longer kept, or the feed has
// never come so far, as after a restore from a backup.
var ErrFeedExpired = errors.New("the feed does not hold what follows this position")

// FeedHead is the position of the newest event of the merchant's feed; 0 without any.
func (q *Queries) FeedHead(ctx context.Context, merchantID string) (position int64, err error) {
	rows, err := postgres.Query(ctx, q.pool, `SELECT position FROM feed_heads WHERE merchant_id = $1`, merchantID)
	if err == nil {
		position, err = pgx.CollectOneRow(rows, pgx.RowTo[int64])
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read the feed's head: %w", err)
	}
	return position, nil
}

// Feed is what follows a position in the merchant's feed, at most limit events, in
// order and without a gap; none means that there is nothing yet. Errors: ErrFeedExpired.
func (q *Queries) Feed(ctx context.Context, merchantID string, after int64, limit int) ([]FeedEvent, error) {
	// One statement, and so one snapshot of the head and of what follows.
	rows, err := postgres.Query(ctx, q.pool, `
		SELECT h.position, f.position, coalesce(t.event_id, ''), coalesce(t.type, ''), coalesce(t.sequence, 0), coalesce(t.occurred_at, 'epoch'), coalesce(t.data, '{}')
		FROM feed_heads h LEFT JOIN LATERAL (
			SELECT f.position, f.payment_id, f.sequence FROM feed_events f
			WHERE f.merchant_id = h.merchant_id AND f.position > $2 ORDER BY f.position LIMIT $3) f ON true
			LEFT JOIN payment_timeline t ON t.merchant_id = h.merchant_id AND t.payment_id = f.payment_id AND t.sequence = f.sequence
		WHERE h.merchant_id = $1
		ORDER BY f.position`, merchantID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the feed: %w", err)
	}
	var (
		head   int64
		at     *int64
		next   = after
		gap    bool
		e      FeedEvent
		events []FeedEvent
	)
	_, err = pgx.ForEachRow(rows, []any{&head, &at, &e.ID, &e.Type, &e.Sequence, &e.At, &e.Data}, func() error {
		if at == nil {
			return nil
		}
		next++
		gap = gap || *at != next
		e.Position, e.At = *at, e.At.UTC()
		events = append(events, e)
		e.Data = payment.EventData{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the feed: %w", err)
	}
	if gap || len(events) == 0 && head != after {
		return nil, ErrFeedExpired
	}
	return events, nil
}

// EventsOf is what follows a sequence among the events of a payment, at most limit.
func (q *Queries) EventsOf(ctx context.Context, merchantID, paymentID string, after int64, limit int) ([]FeedEvent, error) {
	rows, err := postgres.Query(ctx, q.pool, `
		SELECT t.sequence, t.event_id, t.type, t.sequence, t.occurred_at, t.data FROM payment_timeline t
		WHERE t.merchant_id = $1 AND t.payment_id = $2 AND t.sequence > $3 ORDER BY t.sequence LIMIT $4`, merchantID, paymentID, after, limit)
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
	return events, nil
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
