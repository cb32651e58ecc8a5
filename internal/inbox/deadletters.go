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
	// ErrNotBlocked: the key was released or discarded meanwhile, or was never blocked.
	ErrNotBlocked = errors.New("no such key is blocked")
	// ErrCursor: the text is no page's Next.
	ErrCursor = errors.New("not a page's next cursor")
	// ErrNoReason: what is thrown away needs somebody who says why.
	ErrNoReason = errors.New("a discard needs who and why, in text")
	// ErrNotFirst: the message is not the key's first, or not any more.
	ErrNotFirst = errors.New("the first message of the key has another offset")
)

// DeadLetters lists, replays and discards the dead letters of all consumers of a database.
// It can replay only those of the consumers that it was made with.
type DeadLetters struct {
	pool    *pgxpool.Pool
	inboxes map[string]*Inbox
}

func NewDeadLetters(pool *pgxpool.Pool, inboxes ...*Inbox) *DeadLetters {
	p := &DeadLetters{pool: pool, inboxes: map[string]*Inbox{}}
	for _, in := range inboxes {
		p.inboxes[in.consumer] = in
	}
	return p
}

// BlockedKey is a key of a consumer that has dead letters. Reason is the first one's. Messages
// counts them and the later messages of the key, which wait.
type BlockedKey struct {
	ID          string
	Consumer    string
	Topic       string
	Key         []byte
	Fingerprint string
	Reason      string
	Messages    int64
	Replays     int
	BlockedAt   time.Time
}

// DeadLetter is a message that could not be applied, or one that waits behind it. It is as it
// came, without what text cannot hold in its headers.
type DeadLetter struct {
	Partition int
	Offset    int64
	Headers   map[string]string
	Value     []byte
	Reason    string
	StoredAt  time.Time

	arrival int64
}

// BlockedGroup is all keys of a consumer that the same error blocks. Reason is one key's.
type BlockedGroup struct {
	Consumer    string
	Fingerprint string
	Reason      string
	Keys        int64
	Messages    int64
	Oldest      time.Time
}

// BlockedFilter narrows; a zero member does not. After is a page's Next.
type BlockedFilter struct {
	Consumer    string
	Fingerprint string
	After       string
	Limit       int // at most 1000; 0 is 100
}

// BlockedPage is a part of a list. Next is empty on the last.
type BlockedPage struct {
	Keys []BlockedKey
	Next string
}

// deadLetterOrder is that in which a key's messages are applied: by their sequence, since
// they may have come by several partitions, and else as they came. One without a sequence
// is before the others.
const deadLetterOrder = `CASE WHEN headers->>'` + HeaderSequence + `' ~ '^[0-9]{1,18}$' THEN (headers->>'` + HeaderSequence + `')::bigint ELSE 0 END, arrival`

const selectKeys = `
	SELECT k.id, k.consumer, k.topic, k.key, k.fingerprint, coalesce(head.reason, ''), all_of.n, k.replays, k.parked_at
	FROM inbox_parked_keys k
	LEFT JOIN LATERAL (SELECT reason FROM inbox_parked WHERE parked_key = k.id ORDER BY ` + deadLetterOrder + ` LIMIT 1) head ON true,
		LATERAL (SELECT count(*) AS n FROM inbox_parked WHERE parked_key = k.id) all_of `

func scanKey(row pgx.CollectableRow) (k BlockedKey, err error) {
	err = row.Scan(&k.ID, &k.Consumer, &k.Topic, &k.Key, &k.Fingerprint, &k.Reason, &k.Messages, &k.Replays, &k.BlockedAt)
	return k, err
}

// List is oldest first.
func (p *DeadLetters) List(ctx context.Context, f BlockedFilter) (BlockedPage, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	at, id, err := f.position()
	if err != nil {
		return BlockedPage{}, err
	}
	rows, err := p.pool.Query(ctx, selectKeys+`
		WHERE ($1 = '' OR k.consumer = $1) AND ($2 = '' OR k.fingerprint = $2) AND (k.parked_at, k.id) > ($3, $4)
		ORDER BY k.parked_at, k.id LIMIT $5`, f.Consumer, f.Fingerprint, at, id, limit+1)
	if err != nil {
		return BlockedPage{}, fmt.Errorf("list blocked keys: %w", err)
	}
	keys, err := pgx.CollectRows(rows, scanKey)
	if err != nil {
		return BlockedPage{}, fmt.Errorf("list blocked keys: %w", err)
	}
	if len(keys) <= limit {
		return BlockedPage{Keys: keys}, nil
	}
	last := keys[limit-1]
	next := strconv.FormatInt(last.BlockedAt.UnixMicro(), 10) + " " + last.ID
	return BlockedPage{Keys: keys[:limit], Next: base64.RawURLEncoding.EncodeToString([]byte(next))}, nil
}

func (f BlockedFilter) position() (at time.Time, id string, err error) {
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

// Groups is the largest first: one cause in the code blocks many keys alike.
func (p *DeadLetters) Groups(ctx context.Context) ([]BlockedGroup, error) {
	rows, err := p.pool.Query(ctx, `
		SELECT consumer, fingerprint, (array_agg(reason ORDER BY parked_at))[1], count(*), sum(n)::bigint, min(parked_at)
		FROM (`+selectKeys+`) AS k (id, consumer, topic, key, fingerprint, reason, n, replays, parked_at)
		GROUP BY consumer, fingerprint ORDER BY count(*) DESC, min(parked_at), consumer, fingerprint LIMIT 1000`)
	if err != nil {
		return nil, fmt.Errorf("group blocked keys: %w", err)
	}
	groups, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g BlockedGroup, err error) {
		err = row.Scan(&g.Consumer, &g.Fingerprint, &g.Reason, &g.Keys, &g.Messages, &g.Oldest)
		return g, err
	})
	if err != nil {
		return nil, fmt.Errorf("group blocked keys: %w", err)
	}
	return groups, nil
}

// Show is the key and the first of its messages, at most limit of them.
func (p *DeadLetters) Show(ctx context.Context, id string, limit int) (BlockedKey, []DeadLetter, error) {
	rows, err := p.pool.Query(ctx, selectKeys+`WHERE k.id = $1`, id)
	if err != nil {
		return BlockedKey{}, nil, fmt.Errorf("read blocked key: %w", err)
	}
	key, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return BlockedKey{}, nil, ErrNotBlocked
	}
	if err != nil {
		return BlockedKey{}, nil, fmt.Errorf("read blocked key: %w", err)
	}
	messages, err := readDeadLetters(ctx, p.pool, id, limit)
	return key, messages, err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// readDeadLetters is in the order in which they have to be applied.
func readDeadLetters(ctx context.Context, q querier, id string, limit int) ([]DeadLetter, error) {
	rows, err := q.Query(ctx, `
		SELECT partition, "offset", headers, value, reason, parked_at, arrival FROM inbox_parked
		WHERE parked_key = $1 ORDER BY `+deadLetterOrder+` LIMIT $2`, id, limit)
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m DeadLetter, err error) {
		err = row.Scan(&m.Partition, &m.Offset, &m.Headers, &m.Value, &m.Reason, &m.StoredAt, &m.arrival)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	return messages, nil
}
