package outbox

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// snapshot is a pg_snapshot of the database, shared by all shards of one RunOnce.
type snapshot struct {
	text string // as Postgres writes it
	// last is a position beyond which the snapshot sees nothing: it was read after
	// the snapshot was taken.
	last int64
}

func (r *Relay) takeSnapshot(ctx context.Context) (s snapshot, err error) {
	err = r.conn.QueryRow(ctx, `
		SELECT pg_current_snapshot()::text, coalesce(pg_sequence_last_value('outbox_position'), 0)`).Scan(&s.text, &s.last)
	if err != nil {
		return s, fmt.Errorf("take a snapshot: %w", err)
	}
	if s.last != r.last {
		r.last, r.came = s.last, true
	}
	return s, nil
}

// group is the shards that go on from the same cursor; it is one while all is well.
type group struct {
	cursor cursor
	shards []*shard
	ids    []int32
}

func (r *Relay) groups() []*group {
	now := r.Now()
	if !now.Before(r.leaseEnd) {
		return nil
	}
	var groups []*group
	by := map[cursor]*group{}
	for _, s := range r.shards {
		if !s.ready(now) {
			continue
		}
		g := by[s.read]
		if g == nil {
			g = &group{cursor: s.read}
			by[s.read] = g
			groups = append(groups, g)
		}
		g.shards, g.ids = append(g.shards, s), append(g.ids, s.id)
	}
	return groups
}

// advance hands the group what lies between its cursor and now, or the next piece
// of that; more tells that there is another one.
func (r *Relay) advance(ctx context.Context, g *group, now snapshot) (more bool, err error) {
	c := g.cursor
	var next cursor
	var read [][]Message
	if c.page == "" {
		if c.done == now.text {
			return false, nil
		}
		whole, messages, err := r.readWindow(ctx, g, now)
		if err != nil {
			return false, err
		}
		if whole {
			next, read = cursor{done: now.text, from: r.from}, messages
		} else {
			first, err := r.first(ctx, c)
			if err != nil {
				return false, err
			}
			c = cursor{c.done, now.text, first, now.last, r.from}
		}
	}
	if c.page != "" {
		if next, read, err = r.readPage(ctx, g, c); err != nil {
			return false, err
		}
		more = true
	}
	for _, s := range g.shards {
		r.hand(ctx, s, read[s.id], next)
	}
	return more, nil
}

const columns = `position, merchant_id, id, topic, key, key_hash, sequence, headers, payload`

// readWindow reads what the snapshot sees and the cursor does not: the transactions
// that began after the cursor, and those that were running then, both by index outbox_xid.
// More than a batch is not the whole of it, and is not given. The bounds of position let
// the planner leave the partitions out that the cursor has passed.
func (r *Relay) readWindow(ctx context.Context, g *group, now snapshot) (whole bool, messages [][]Message, err error) {
	rows, err := r.conn.Query(ctx, `
		SELECT `+columns+` FROM (
			(SELECT `+columns+` FROM outbox
			WHERE xid >= pg_snapshot_xmax($1::pg_snapshot) AND xid < pg_snapshot_xmax($2::pg_snapshot)
				AND pg_visible_in_snapshot(xid, $2::pg_snapshot) AND position > $7 AND key_hash % $4::int = ANY ($5::int[])
			LIMIT $6)
			UNION ALL
			(SELECT `+columns+` FROM outbox
			WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot)))
				AND pg_visible_in_snapshot(xid, $2::pg_snapshot) AND position >= $3 AND key_hash % $4::int = ANY ($5::int[])
			LIMIT $6)
		) both_branches
		ORDER BY position`,
		g.cursor.done, now.text, r.low(g.cursor.done), r.Shards, g.ids, r.Batch+1, g.cursor.from)
	messages, n, _, err := r.collectRows(rows, err)
	if n > r.Batch {
		return false, nil, err
	}
	return true, messages, err
}

// first is a position up to which the cursor leaves nothing unseen: what its snapshot
// names as running is looked for, and all others lie beyond from. With low alone, an open transaction
// that holds it back would have each large window walk over all that was published meanwhile.
func (r *Relay) first(ctx context.Context, c cursor) (first int64, err error) {
	err = r.conn.QueryRow(ctx, `
		SELECT least(greatest($2::bigint, $3::bigint - 1), min(position) - 1) FROM outbox
		WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot))) AND position >= $3`,
		c.done, c.from, r.low(c.done)).Scan(&first)
	if err != nil {
		err = fmt.Errorf("look for the window's beginning: %w", err)
	}
	return first, err
}

// stride is how far a page looks for its batch of messages: where other shards'
// or published ones lie thick, a statement still comes to an end.
const stride = 16

// readPage goes on inside a window that is larger than a batch, by the primary key.
func (r *Relay) readPage(ctx context.Context, g *group, c cursor) (next cursor, messages [][]Message, err error) {
	upTo := min(c.position+int64(stride*r.Batch), c.end)
	rows, err := r.conn.Query(ctx, `
		SELECT `+columns+` FROM outbox
		WHERE position > $3 AND position <= $4 AND pg_visible_in_snapshot(xid, $2::pg_snapshot)
			AND NOT pg_visible_in_snapshot(xid, $1::pg_snapshot) AND key_hash % $5::int = ANY ($6::int[])
		ORDER BY position
		LIMIT $7`,
		c.done, c.page, c.position, upTo, r.Shards, g.ids, r.Batch)
	messages, n, last, err := r.collectRows(rows, err)
	switch {
	case n == r.Batch:
		next = cursor{c.done, c.page, last, c.end, c.from}
	case upTo < c.end:
		next = cursor{c.done, c.page, upTo, c.end, c.from}
	default:
		next = cursor{done: c.page, from: c.from}
	}
	return next, messages, err
}

// collectRows sorts the rows out to their shards.
func (r *Relay) collectRows(rows pgx.Rows, err error) (messages [][]Message, n int, last int64, err2 error) {
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read outbox: %w", err)
	}
	messages = make([][]Message, r.Shards)
	var m Message
	var hash int32
	var headers pgtype.UndecodedBytes
	_, err = pgx.ForEachRow(rows,
		[]any{&last, &m.MerchantID, &m.ID, &m.Topic, &m.Key, &hash, &m.Sequence, &headers, &m.Payload}, func() (err error) {
			if m.Headers, err = decodeHeaders(headers); err != nil {
				return fmt.Errorf("at position %d: %w", last, err)
			}
			of := int(hash) % r.Shards
			messages[of] = append(messages[of], m)
			m.Payload = nil
			n++
			return nil
		})
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read outbox: %w", err)
	}
	return messages, n, last, nil
}

// closedPartition holds no row that a snapshot with xmin of at least xid does not see.
type closedPartition struct {
	xid  uint64
	high int64
}

// low is a position below which the snapshot leaves nothing unseen.
func (r *Relay) low(done string) int64 {
	first, _, _ := strings.Cut(done, ":") // xmin:xmax:xip,…
	xmin, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0 // reads more than it has to
	}
	for _, p := range r.closed {
		if p.xid <= xmin {
			return p.high
		}
	}
	return 0
}
