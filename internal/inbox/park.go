package inbox

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	maxReason    = 4000 // bytes: enough for a panic's own frames
	countTimeout = 2 * time.Second
)

// parkedKeys are those of the batch's keys that wait already. Index
// inbox_parked_key: it holds digests, since a key may be longer than what an
// index can hold.
func (in *Inbox) parkedKeys(ctx context.Context, tx pgx.Tx, batch []Message) (map[string]bool, error) {
	keys := make([][]byte, len(batch))
	for i, m := range batch {
		keys[i] = orEmpty(m.Key)
	}
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT key FROM inbox_parked
		WHERE consumer = $1 AND sha256(key) = ANY (SELECT sha256(k) FROM unnest($2::bytea[]) AS k)`,
		in.consumer, keys)
	if err != nil {
		return nil, fmt.Errorf("read parked keys: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, fmt.Errorf("read parked keys: %w", err)
	}
	parked := map[string]bool{}
	for _, key := range found {
		parked[string(key)] = true
	}
	return parked, nil
}

// park is false when the message is parked already, or was applied before its
// key was parked and has come again.
func (in *Inbox) park(ctx context.Context, tx pgx.Tx, m Message, reason error) (bool, error) {
	headers := make(map[string]string, len(m.Headers))
	for name, value := range m.Headers {
		headers[clean(name)] = clean(value)
	}
	h, err := json.Marshal(headers)
	if err != nil {
		return false, fmt.Errorf("encode headers: %w", err)
	}
	why := clean(reason.Error())
	if len(why) > maxReason {
		why = strings.ToValidUTF8(why[:maxReason], "")
	}
	var id *string
	if s, ok := messageID(m); ok {
		id = &s
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO inbox_parked (consumer, topic, partition, "offset", key, headers, value, reason)
		SELECT $1, $2, $3::int, $4::bigint, $5::bytea, $6::jsonb, $7::bytea, $8::text
		WHERE NOT EXISTS (SELECT FROM inbox_messages WHERE consumer = $1 AND message_id = $9::text)
		ON CONFLICT DO NOTHING`,
		in.consumer, m.Topic, m.Partition, m.Offset, orEmpty(m.Key), h, orEmpty(m.Value), why, id)
	if err != nil {
		return false, err
	}
	return tag.RowsAffected() == 1, nil
}

func (in *Inbox) countParked(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	var n int64
	err := in.pool.QueryRow(ctx, `SELECT count(DISTINCT sha256(key)) FROM inbox_parked WHERE consumer = $1`,
		in.consumer).Scan(&n)
	in.counted.Store(err == nil)
	if err != nil {
		in.log.WarnContext(ctx, "parked keys not counted, the next batch tries again", "error", err)
		return
	}
	in.parked.Set(float64(n))
}

// clean makes text that Postgres can hold of bytes that anyone may have sent.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}

// orEmpty: a record without a key or a value (a tombstone) is nil, the columns are NOT NULL.
func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
