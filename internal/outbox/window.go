package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

type window struct {
	messages []Message
	next     cursor // once the messages are published
	full     bool
}

// firstPage reads, in one statement and so by one snapshot, that snapshot and
// what it sees beyond done: the transactions that began after done, and those
// that were running then. Index outbox_xid serves both; "+ 0" keeps the planner
// from walking the primary key through all that was ever published.
const firstPage = `
	SELECT s.snapshot, w.position, w.merchant_id, w.id, w.topic, w.key, w.sequence, w.headers, w.payload
	FROM (SELECT pg_current_snapshot()::text AS snapshot) s
	LEFT JOIN LATERAL (
		SELECT * FROM (
			SELECT * FROM outbox WHERE xid >= pg_snapshot_xmax($1::pg_snapshot)
			UNION ALL
			SELECT * FROM outbox WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot)))
		) both_branches
		ORDER BY position + 0
		LIMIT $2
	) w ON true
	ORDER BY w.position`

// nextPage goes on inside the window by the primary key.
const nextPage = `
	SELECT $3::text, position, merchant_id, id, topic, key, sequence, headers, payload
	FROM outbox
	WHERE position > $4
		AND pg_visible_in_snapshot(xid, $3::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::pg_snapshot)
	ORDER BY position
	LIMIT $2`

func (r *Relay) read(ctx context.Context) (window, error) {
	query, args := firstPage, []any{r.cursor.done, r.Batch}
	if r.cursor.page != nil {
		query, args = nextPage, append(args, *r.cursor.page, r.cursor.position)
	}
	rows, err := r.pool.Query(ctx, query, args...)
	if err != nil {
		return window{}, fmt.Errorf("read outbox: %w", err)
	}
	var w window
	var snapshot string
	var last int64
	var position, sequence *int64
	var merchant, id, topic, key *string
	var headers, payload []byte
	_, err = pgx.ForEachRow(rows,
		[]any{&snapshot, &position, &merchant, &id, &topic, &key, &sequence, &headers, &payload}, func() error {
			if position == nil {
				return nil // nothing new: the snapshot alone
			}
			h, err := decodeHeaders(headers)
			if err != nil {
				return fmt.Errorf("at position %d: %w", *position, err)
			}
			last = *position
			w.messages = append(w.messages, Message{
				MerchantID: *merchant, ID: *id, Topic: *topic, Key: *key, Sequence: *sequence, Headers: h, Payload: payload,
			})
			return nil
		})
	if err != nil {
		return window{}, fmt.Errorf("read outbox: %w", err)
	}
	if r.cursor.page != nil {
		snapshot = *r.cursor.page // an empty page has no row to tell it
	}
	w.full = len(w.messages) == r.Batch
	if w.full {
		w.next = cursor{done: r.cursor.done, page: &snapshot, position: last}
	} else {
		w.next = cursor{done: snapshot}
	}
	return w, nil
}
