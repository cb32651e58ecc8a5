package inbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// block writes the messages as dead letters, after those that wait already, and blocks their keys.
// It leaves out a message that is a dead letter already, and one that was applied before its key
// was blocked and has come again. n counts the others.
func (in *Inbox) block(ctx context.Context, tx pgx.Tx, batch []Message, all []waiting) (n int, err error) {
	var keyIDs, topics, prints []string
	var keys [][]byte
	seen := map[string]bool{}
	var owners, headers, reasons []string
	var partitions []int32
	var offsets []int64
	var values [][]byte
	var ids []*string
	var days []time.Time
	for _, w := range all {
		m := batch[w.message]
		owner := blockedID(in.consumer, m.Topic, m.Key)
		why := reasonOf(w.reason)
		if !seen[owner] { // the first of a key has the reason, unless the key is blocked already
			seen[owner] = true
			keyIDs, topics, keys, prints = append(keyIDs, owner), append(topics, m.Topic), append(keys, orEmpty(m.Key)), append(prints, fingerprintOf(w.reason))
		}
		h, err := encodeHeaders(m.Headers)
		if err != nil {
			return 0, err
		}
		id, usable := m.id()
		day := undated
		ids = append(ids, nil)
		if usable {
			ids[len(ids)-1], day = &id, madeOn(id)
		}
		owners, headers, reasons, days = append(owners, owner), append(headers, h), append(reasons, why), append(days, day)
		partitions, offsets, values = append(partitions, int32(m.Partition)), append(offsets, m.Offset), append(values, orEmpty(m.Value)) //nolint:gosec // Kafka's partitions are int32
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO inbox_parked_keys (id, consumer, topic, key, fingerprint)
		SELECT id, $1, topic, key, print FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[]) AS k (id, topic, key, print)
		ON CONFLICT DO NOTHING`, in.consumer, keyIDs, topics, keys, prints); err != nil {
		return 0, fmt.Errorf("block keys: %w", err)
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO inbox_parked (parked_key, "offset", partition, headers, value, reason)
		SELECT owner, at, partition, headers::jsonb, value, reason
		FROM unnest($2::text[], $3::bigint[], $4::int[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::date[])
			WITH ORDINALITY AS m (owner, at, partition, headers, value, reason, id, made_on, n)
		WHERE NOT EXISTS (SELECT FROM inbox_messages s WHERE s.consumer = $1 AND s.made_on = m.made_on AND s.message_id = m.id)
		ORDER BY n ON CONFLICT DO NOTHING`, in.consumer, owners, offsets, partitions, headers, values, reasons, ids, days)
	if err != nil {
		return 0, fmt.Errorf("write dead letters: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

func encodeHeaders(headers map[string]string) (string, error) {
	plain := make(map[string]string, len(headers))
	for name, value := range headers {
		plain[clean(name)] = clean(value)
	}
	b, err := json.Marshal(plain)
	if err != nil {
		return "", fmt.Errorf("encode headers: %w", err)
	}
	return string(b), nil
}
