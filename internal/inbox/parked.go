package inbox

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	// ErrNotParked: the key was released or discarded meanwhile, or was never parked.
	ErrNotParked = errors.New("no such key is parked")
	// ErrCursor: the text is no page's Next.
	ErrCursor = errors.New("not a page's next cursor")
	// ErrNoReason: what is thrown away needs somebody who says why.
	ErrNoReason = errors.New("a discard needs who and why, in text")
	// ErrNotFirst: the message is not the key's first, or not any more.
	ErrNotFirst = errors.New("the first message of the key has another offset")
)

// Parked is what people do about the keys that wait for them, of all consumers
// of a database. Only the consumers it was made with can be replayed by it.
type Parked struct {
	pool    *pgxpool.Pool
	inboxes map[string]*Inbox
}

func NewParked(pool *pgxpool.Pool, inboxes ...*Inbox) *Parked {
	p := &Parked{pool: pool, inboxes: map[string]*Inbox{}}
	for _, in := range inboxes {
		p.inboxes[in.consumer] = in
	}
	return p
}

// ParkedKey is a key of a consumer. Reason is that of the first of its Messages.
type ParkedKey struct {
	ID          string
	Consumer    string
	Topic       string
	Key         []byte
	Fingerprint string
	Reason      string
	Messages    int64
	Replays     int
	ParkedAt    time.Time
}

// ParkedMessage is as it came, less what no text can hold in its headers.
type ParkedMessage struct {
	Partition int
	Offset    int64
	Headers   map[string]string
	Value     []byte
	Reason    string
	ParkedAt  time.Time

	arrival int64
}

// ParkedGroup is all keys of a consumer that one error holds. Reason is that of one of them.
type ParkedGroup struct {
	Consumer    string
	Fingerprint string
	Reason      string
	Keys        int64
	Messages    int64
	Oldest      time.Time
}

// ParkedFilter narrows; a zero member does not. After is a page's Next.
type ParkedFilter struct {
	Consumer    string
	Fingerprint string
	After       string
	Limit       int // at most 1000; 0 is 100
}

// ParkedPage is a part of a list. Next is empty on the last.
type ParkedPage struct {
	Keys []ParkedKey
	Next string
}

// parkedOrder is that in which a key's messages are applied: by their sequence, since
// they may have come by several partitions, and else as they came. One without a sequence
// is before the others.
const parkedOrder = `CASE WHEN headers->>'` + HeaderSequence + `' ~ '^[0-9]{1,18}$' THEN (headers->>'` + HeaderSequence + `')::bigint ELSE 0 END, arrival`

const selectKeys = `
	SELECT k.id, k.consumer, k.topic, k.key, k.fingerprint, coalesce(head.reason, ''), all_of.n, k.replays, k.parked_at
	FROM inbox_parked_keys k
	LEFT JOIN LATERAL (SELECT reason FROM inbox_parked WHERE parked_key = k.id ORDER BY ` + parkedOrder + ` LIMIT 1) head ON true,
		LATERAL (SELECT count(*) AS n FROM inbox_parked WHERE parked_key = k.id) all_of `

func scanKey(row pgx.CollectableRow) (k ParkedKey, err error) {
	err = row.Scan(&k.ID, &k.Consumer, &k.Topic, &k.Key, &k.Fingerprint, &k.Reason, &k.Messages, &k.Replays, &k.ParkedAt)
	return k, err
}

// List is oldest first.
func (p *Parked) List(ctx context.Context, f ParkedFilter) (ParkedPage, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	at, id, err := f.position()
	if err != nil {
		return ParkedPage{}, err
	}
	rows, err := p.pool.Query(ctx, selectKeys+`
		WHERE ($1 = '' OR k.consumer = $1) AND ($2 = '' OR k.fingerprint = $2) AND (k.parked_at, k.id) > ($3, $4)
		ORDER BY k.parked_at, k.id LIMIT $5`, f.Consumer, f.Fingerprint, at, id, limit+1)
	if err != nil {
		return ParkedPage{}, fmt.Errorf("list parked keys: %w", err)
	}
	keys, err := pgx.CollectRows(rows, scanKey)
	if err != nil {
		return ParkedPage{}, fmt.Errorf("list parked keys: %w", err)
	}
	if len(keys) <= limit {
		return ParkedPage{Keys: keys}, nil
	}
	last := keys[limit-1]
	next := strconv.FormatInt(last.ParkedAt.UnixMicro(), 10) + " " + last.ID
	return ParkedPage{Keys: keys[:limit], Next: base64.RawURLEncoding.EncodeToString([]byte(next))}, nil
}

func (f ParkedFilter) position() (at time.Time, id string, err error) {
	if f.After == "" {
		return undated, "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(f.After)
	if err != nil {
		return at, "", ErrCursor
	}
	micros, id, ok := strings.Cut(string(b), " ")
	n, err := strconv.ParseInt(micros, 10, 64)
	if err != nil || !ok || clean(id) != id {
		return at, "", ErrCursor
	}
	return time.UnixMicro(n), id, nil
}

// Groups is the largest first: one cause in the code parks many keys alike.
func (p *Parked) Groups(ctx context.Context) ([]ParkedGroup, error) {
	rows, err := p.pool.Query(ctx, `
		SELECT consumer, fingerprint, (array_agg(reason ORDER BY parked_at))[1], count(*), sum(n)::bigint, min(parked_at)
		FROM (`+selectKeys+`) AS k (id, consumer, topic, key, fingerprint, reason, n, replays, parked_at)
		GROUP BY consumer, fingerprint ORDER BY count(*) DESC, min(parked_at), consumer, fingerprint LIMIT 1000`)
	if err != nil {
		return nil, fmt.Errorf("group parked keys: %w", err)
	}
	groups, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g ParkedGroup, err error) {
		err = row.Scan(&g.Consumer, &g.Fingerprint, &g.Reason, &g.Keys, &g.Messages, &g.Oldest)
		return g, err
	})
	if err != nil {
		return nil, fmt.Errorf("group parked keys: %w", err)
	}
	return groups, nil
}

// Show is the key and the first of its messages, at most limit of them.
func (p *Parked) Show(ctx context.Context, id string, limit int) (ParkedKey, []ParkedMessage, error) {
	rows, err := p.pool.Query(ctx, selectKeys+`WHERE k.id = $1`, id)
	if err != nil {
		return ParkedKey{}, nil, fmt.Errorf("read parked key: %w", err)
	}
	key, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return ParkedKey{}, nil, ErrNotParked
	}
	if err != nil {
		return ParkedKey{}, nil, fmt.Errorf("read parked key: %w", err)
	}
	messages, err := readParked(ctx, p.pool, id, limit)
	return key, messages, err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// readParked is in the order in which they have to be applied.
func readParked(ctx context.Context, q querier, id string, limit int) ([]ParkedMessage, error) {
	rows, err := q.Query(ctx, `
		SELECT partition, "offset", headers, value, reason, parked_at, arrival FROM inbox_parked
		WHERE parked_key = $1 ORDER BY `+parkedOrder+` LIMIT $2`, id, limit)
	if err != nil {
		return nil, fmt.Errorf("read parked messages: %w", err)
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m ParkedMessage, err error) {
		err = row.Scan(&m.Partition, &m.Offset, &m.Headers, &m.Value, &m.Reason, &m.ParkedAt, &m.arrival)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("read parked messages: %w", err)
	}
	return messages, nil
}
