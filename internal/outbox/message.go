package outbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"payments/internal/postgres"
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

// ErrNotDurable refuses a transaction whose commit does not wait until it is on
// disk, here and on the standbys that count: it could be told as done, published,
// and be gone after a crash.
var ErrNotDurable = errors.New("the transaction's synchronous_commit is weaker than on")

// Append adds the messages, in their order, to the caller's transaction, which
// must hold the lock of each key's aggregate row. A sequence that is taken violates
// a constraint …_one_event_a_sequence.
func Append(ctx context.Context, tx pgx.Tx, msgs ...Message) error {
	var b pgx.Batch
	if err := Queue(&b, msgs...); err != nil || b.Len() == 0 {
		return err
	}
	return tx.SendBatch(ctx, &b).Close()
}

// appended is a message as it is written.
type appended struct {
	MerchantID string `sql:"merchant_id text"`
	ID         string `sql:"id text"`
	Topic      string `sql:"topic text"`
	Key        string `sql:"key text"`
	Hash       int32  `sql:"key_hash int"`
	Sequence   int64  `sql:"sequence bigint"`
	Headers    string `sql:"headers text"` // an array's literal
	Payload    []byte `sql:"payload bytea"`
	Place      int32  `sql:"n int"`
}

// Queue is Append in a batch of statements.
func Queue(b *pgx.Batch, msgs ...Message) error {
	if len(msgs) == 0 {
		return nil
	}
	rows := make([]appended, len(msgs))
	for n, m := range msgs {
		if err := m.validate(); err != nil {
			return fmt.Errorf("append message %q of key %q: %w", m.ID, m.Key, err)
		}
		rows[n] = appended{
			MerchantID: m.MerchantID, ID: m.ID, Topic: m.Topic, Key: m.Key, Hash: hash(m.Key), Sequence: m.Sequence,
			Headers: encodeHeaders(m.Headers), Payload: m.Payload, Place: int32(n),
		}
		if m.Payload == nil {
			rows[n].Payload = []byte{}
		}
	}
	// Positions are drawn row by row after the sort. The server looks at its own
	// setting in the same statement, so that no connection escapes by the way it was opened.
	b.Queue(`
		INSERT INTO outbox (merchant_id, id, topic, key, key_hash, sequence, headers, payload)
		SELECT merchant_id, id, topic, key, key_hash, sequence, headers::text[], payload FROM `+postgres.Unnest[appended](1)+` m
		WHERE current_setting('synchronous_commit') IN ('on', 'remote_apply')
		ORDER BY n`, postgres.Columns(rows)...).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("append %d messages to the outbox: %w", len(msgs), ErrNotDurable)
		}
		return nil
	})
	return nil
}

func (m *Message) validate() error {
	for _, field := range []struct{ name, value string }{
		{"merchant id", m.MerchantID}, {"id", m.ID}, {"topic", m.Topic}, {"key", m.Key},
	} {
		if field.value == "" {
			return fmt.Errorf("its %s is empty", field.name)
		}
	}
	if m.Sequence < 1 {
		return fmt.Errorf("its sequence %d is less than 1", m.Sequence)
	}
	for _, h := range m.Headers {
		if h.Key == "" || !text(h.Key) || !text(h.Value) {
			return fmt.Errorf("its header %q is not a name and a value in UTF-8 without NUL", h.Key)
		}
	}
	return nil
}

func text(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// escape is for what stands in quotes in an array literal.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// encodeHeaders writes a Postgres array literal, names and values in turn, which
// keeps their order and repeated names.
func encodeHeaders(headers []Header) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, h := range headers {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		_, _ = escape.WriteString(&b, h.Key) // a Builder gives no error
		b.WriteString(`","`)
		_, _ = escape.WriteString(&b, h.Value)
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

var errHeaders = errors.New("headers are not names and values in turn")

// decodeHeaders reads text[] in Postgres' binary format, in which it comes: a row
// has a dozen of them, and all share one string.
func decodeHeaders(b []byte) ([]Header, error) {
	const fixed, dimension = 12, 8 // dimensions, nulls, type; then length and lower bound
	if len(b) == fixed {
		return []Header{}, nil
	}
	if len(b) < fixed+dimension || binary.BigEndian.Uint32(b) != 1 {
		return nil, errHeaders
	}
	n := int(binary.BigEndian.Uint32(b[fixed:]))
	all := string(b)
	at := fixed + dimension
	next := func() (string, bool) {
		if len(b) < at+4 {
			return "", false
		}
		size := int(int32(binary.BigEndian.Uint32(b[at:]))) //nolint:gosec // -1 is NULL
		at += 4
		if size < 0 || len(b) < at+size {
			return "", false
		}
		at += size
		return all[at-size : at], true
	}
	headers := make([]Header, 0, n/2)
	for range n / 2 {
		key, ok := next()
		value, ok2 := next()
		if !ok || !ok2 {
			return nil, errHeaders
		}
		headers = append(headers, Header{key, value})
	}
	return headers, nil
}
