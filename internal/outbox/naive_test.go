package outbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/outbox"
)

// byTransaction is the relay that many write second: ordered by transaction id, and
// guarded by the oldest that is still running, so that nothing can be lost.
type byTransaction struct {
	pool *pgxpool.Pool
	last int64 // position of the last one published
	xid  string
	sent []outbox.Message
}

func (n *byTransaction) turn(t *testing.T) {
	t.Helper()
	if n.xid == "" {
		n.xid = "0"
	}
	rows, err := n.pool.Query(t.Context(), `
		SELECT xid::text, position, id, key, sequence FROM outbox
		WHERE (xid, position) > ($1::xid8, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
		ORDER BY xid, position`, n.xid, n.last)
	if err != nil {
		t.Fatal(err)
	}
	var m outbox.Message
	if _, err := pgx.ForEachRow(rows, []any{&n.xid, &n.last, &m.ID, &m.Key, &m.Sequence}, func() error {
		n.sent = append(n.sent, m)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A transaction that has its id early takes the aggregate's lock late: order by
// transaction id then puts its message before the one that it waited for.
func TestTransactionIdsAreNotTheOrderOfAKey(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	xids := &byTransaction{pool: pool}
	early, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = early.Rollback(context.WithoutCancel(t.Context())) }()
	if err := next(t.Context(), early, "other"); err != nil { // it has its id now
		t.Fatal(err)
	}
	commit(t, pool, "a")
	turn(t, r)
	if err := next(t.Context(), early, "a"); err != nil {
		t.Fatal(err)
	}
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	turn(t, r)
	xids.turn(t)
	same(t, "published", w.ids(), "a-1", "other-1", "a-2")
	if first, again := w.inSequence(t); first != 3 || again != 0 {
		t.Errorf("%d messages, %d again; want 3 and 0", first, again)
	}
	if _, _, inverted := count(xids.sent); inverted != 1 {
		t.Errorf("ordered by transaction id %d messages were inverted: the test does not provoke the fault", inverted)
	}
}

// Any transaction with an id, in any database of the cluster, holds up whoever
// waits for the oldest one.
func TestALongTransactionElsewhereStallsNothing(t *testing.T) {
	pool, _ := database(t)
	elsewhere, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	xids := &byTransaction{pool: pool}
	long, err := elsewhere.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := long.Exec(t.Context(), `SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		commit(t, pool, "a")
		turn(t, r)
		xids.turn(t)
	}
	same(t, "published beside a long transaction", w.ids(), "a-1", "a-2", "a-3")
	if len(xids.sent) != 0 {
		t.Errorf("guarded by the oldest transaction %d messages came: the test does not provoke the stall", len(xids.sent))
	}
	if err := long.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	xids.turn(t)
	if len(xids.sent) != 3 {
		t.Errorf("after its end %d messages came, want 3", len(xids.sent))
	}
}

// Two relays that each lock what the other has not, and no shard that a key belongs
// to: the second has a key's later message out before the first its earlier.
func TestSkipLockedInvertsAKey(t *testing.T) {
	pool, owner := database(t)
	commit(t, pool, "a", "a")
	execute(t, owner, `GRANT UPDATE ON outbox TO PUBLIC`) // as FOR UPDATE needs it
	naive := &wire{}
	take := func() (pgx.Tx, outbox.Message) {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var m outbox.Message
		if err := tx.QueryRow(t.Context(), `
			SELECT id, key, sequence FROM outbox ORDER BY position LIMIT 1 FOR UPDATE SKIP LOCKED`).Scan(&m.ID, &m.Key, &m.Sequence); err != nil {
			t.Fatal(err)
		}
		return tx, m
	}
	one, first := take()
	two, second := take()
	if err := errors.Join(naive.Publish(t.Context(), []outbox.Message{second}), naive.Publish(t.Context(), []outbox.Message{first}),
		two.Rollback(t.Context()), one.Rollback(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, _, inverted := count(naive.sent); inverted != 1 {
		t.Errorf("SKIP LOCKED inverted %d messages: the test does not provoke the fault", inverted)
	}

	w := &wire{}
	a, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 4})
	b, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 4})
	look(t, a, b, a, b)
	commit(t, pool, "a", "a", "b", "c")
	look(t, b, a)
	if n, again := w.inSequence(t); n != 6 || again != 0 {
		t.Errorf("two relays sent %d messages, %d twice; want 6", n, again)
	}
}

// The naive checkpoint is one row that whoever believes to own the shard updates:
// a zombie's puts the cursor back, and what was published comes again.
func TestACheckpointWithoutAnEpochGoesBack(t *testing.T) {
	pool, owner := database(t)
	execute(t, owner, `CREATE TABLE naive (position bigint); INSERT INTO naive VALUES (0); GRANT ALL ON naive TO PUBLIC`)
	commit(t, pool, "a")
	zombie := query[int64](t, pool, `SELECT max(position) FROM outbox`) // it stands still before its checkpoint
	commit(t, pool, "a")
	for _, position := range []int64{query[int64](t, pool, `SELECT max(position) FROM outbox`), zombie} {
		execute(t, pool, `UPDATE naive SET position = $1`, position)
	}
	if again := query[int](t, pool, `SELECT count(*) FROM outbox, naive WHERE outbox.position > naive.position`); again != 1 {
		t.Errorf("%d messages would come again: the test does not provoke the fault", again)
	}
}
