package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// Header is text beside a payload: valid UTF-8 without NUL. Names may repeat.
type Header struct {
	Key   string
	Value string
}

// Message is one event. Sequence counts the messages of a Key from 1 without a
// gap; ID is the same over every delivery.
type Message struct {
	MerchantID string
	ID         string
	Topic      string
	Key        string
	Sequence   int64
	Headers    []Header
	Payload    []byte
}

// Append adds the messages, in their order, to the caller's transaction, which
// must hold the lock of each key's aggregate row. A sequence or id that is taken
// violates outbox_one_event_a_sequence or outbox_id_key.
func Append(ctx context.Context, tx pgx.Tx, msgs ...Message) error {
	if len(msgs) == 0 {
		return nil
	}
	n := len(msgs)
	merchants, ids, topics, keys := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	sequences, headers, payloads := make([]int64, n), make([]string, n), make([][]byte, n)
	for i, m := range msgs {
		h, err := encode(m)
		if err != nil {
			return fmt.Errorf("append message %q of key %q: %w", m.ID, m.Key, err)
		}
		merchants[i], ids[i], topics[i], keys[i], sequences[i], headers[i] = m.MerchantID, m.ID, m.Topic, m.Key, m.Sequence, h
		payloads[i] = m.Payload
		if payloads[i] == nil {
			payloads[i] = []byte{}
		}
	}
	// Positions are drawn row by row after the sort.
	_, err := tx.Exec(ctx, `
		INSERT INTO outbox (merchant_id, id, topic, key, sequence, headers, payload)
		SELECT merchant_id, id, topic, key, sequence, headers::jsonb, payload
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bytea[])
			WITH ORDINALITY AS m (merchant_id, id, topic, key, sequence, headers, payload, n)
		ORDER BY n`,
		merchants, ids, topics, keys, sequences, headers, payloads)
	if err != nil {
		return fmt.Errorf("append %d messages to the outbox: %w", n, err)
	}
	return nil
}

// encode makes the headers' column: an array of pairs, which keeps their order
// and repeated names.
func encode(m Message) (string, error) {
	for _, field := range []struct{ name, value string }{
		{"merchant id", m.MerchantID}, {"id", m.ID}, {"topic", m.Topic}, {"key", m.Key},
	} {
		if field.value == "" {
			return "", fmt.Errorf("its %s is empty", field.name)
		}
	}
	if m.Sequence < 1 {
		return "", fmt.Errorf("its sequence %d is less than 1", m.Sequence)
	}
	pairs := make([][2]string, len(m.Headers))
	for i, h := range m.Headers {
		if h.Key == "" || !text(h.Key) || !text(h.Value) {
			return "", fmt.Errorf("its header %q is not a name and a value in UTF-8 without NUL", h.Key)
		}
		pairs[i] = [2]string{h.Key, h.Value}
	}
	b, err := json.Marshal(pairs)
	return string(b), err
}

func text(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func decodeHeaders(b []byte) ([]Header, error) {
	var pairs [][2]string
	if err := json.Unmarshal(b, &pairs); err != nil {
		return nil, fmt.Errorf("decode headers: %w", err)
	}
	headers := make([]Header, len(pairs))
	for i, p := range pairs {
		headers[i] = Header{Key: p[0], Value: p[1]}
	}
	return headers, nil
}
