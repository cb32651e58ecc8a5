package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/outbox"
	"payments/internal/postgres"
)

// naive is the relay that many write first: a cursor over the sequence.
type naive struct {
	pool *pgxpool.Pool
	last int64
	ids  []string
}

func (n *naive) turn(t *testing.T) {
	t.Helper()
	rows, err := n.pool.Query(t.Context(), `SELECT position, id FROM outbox WHERE position > $1 ORDER BY position`, n.last)
	if err != nil {
		t.Fatal(err)
	}
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&n.last, &id}, func() error {
		n.ids = append(n.ids, id)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAPositionDrawnEarlyAndCommittedLateIsNeitherLostNorWaitedFor(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	cursor := &naive{pool: pool}

	commit(t, pool, "a")
	early := begin(t, pool, "early")
	commit(t, pool, "b")
	turn(t, r)
	cursor.turn(t)
	same(t, "published while a transaction is open", w.ids(), "a-1", "b-1")
	commit(t, pool, "b")
	turn(t, r)
	cursor.turn(t)
	same(t, "published while it is still open", w.ids(), "a-1", "b-1", "b-2")
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		turn(t, r)
		cursor.turn(t)
	}
	same(t, "published", w.ids(), "a-1", "b-1", "b-2", "early-1")
	same(t, "published by a cursor over the sequence, which loses a row", cursor.ids, "a-1", "b-1", "b-2")
}

func TestARolledBackTransactionIsPassed(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	open := begin(t, pool, "gone")
	turn(t, r)
	if err := open.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, pool, "gone")
	turn(t, r)
	same(t, "published", w.ids(), "gone-1")
}

func TestAWindowLargerThanABatch(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, reg := relay(t, pool, w, outbox.RelayConfig{Batch: 3})
	early := begin(t, pool, "early")
	for range 4 {
		commit(t, pool, "a", "b")
	}
	if !turn(t, r) {
		t.Error("a full batch did not ask for another turn")
	}
	// Behind the page that is out, and not of this window: they are the next window's.
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, pool, "a", "c")
	turn(t, r)
	same(t, "two pages", w.ids(), "a-1", "b-1", "a-2", "b-2", "a-3", "b-3")

	if err := r.Release(t.Context()); err != nil { // and its successor goes on inside the window
		t.Fatal(err)
	}
	r2, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 3})
	settle(t, r2)
	same(t, "published", w.ids(),
		"a-1", "b-1", "a-2", "b-2", "a-3", "b-3", "a-4", "b-4", "early-1", "a-5", "c-1")
	settle(t, r2)
	if n := len(w.ids()); n != 11 {
		t.Errorf("%d messages were sent, want 11", n)
	}
	if got := metric(t, reg, "payments_outbox_published_total"); got != 6 {
		t.Errorf("the first relay counted %v messages, want 6", got)
	}
}

// The window's rows lie below rows that are published: the next page passes those.
func TestALateTransactionLargerThanABatch(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 2})
	late := begin(t, pool, "late")
	for range 2 {
		if err := next(t.Context(), late, "late"); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, pool, "a")
	turn(t, r)
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	same(t, "published", w.ids(), "a-1", "late-1", "late-2", "late-3")
}

func TestABatchThatEndsWithTheWindow(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 2})
	commit(t, pool, "a", "b")
	turn(t, r)
	turn(t, r)
	commit(t, pool, "a")
	turn(t, r)
	same(t, "published", w.ids(), "a-1", "b-1", "a-2")
}

// Eight writers on twenty keys hold their transactions open over a random number
// of the relay's turns, so that commits come in another order than positions.
func TestConcurrentWriters(t *testing.T) {
	const writers, each, keys = 8, 60, 20
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 7})
	cursor := &naive{pool: pool}

	turned := newTurns()
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 42))
			for range each {
				of := []string{fmt.Sprint("k", random.IntN(keys)), fmt.Sprint("k", random.IntN(keys))}
				slices.Sort(of) // no deadlocks
				hold := random.IntN(6)
				err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
					for _, key := range slices.Compact(of) {
						if err := next(t.Context(), tx, key); err != nil {
							return err
						}
					}
					turned.wait(t.Context(), hold)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		turn(t, r)
		cursor.turn(t)
		turned.add()
	}
	settle(t, r)

	var want int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM outbox`).Scan(&want); err != nil {
		t.Fatal(err)
	}
	first, again := w.inSequence(t)
	if first != want || again != 0 {
		t.Errorf("of %d messages %d were published and %d twice", want, first, again)
	}
	if lost := want - len(cursor.ids); lost == 0 {
		t.Error("a cursor over the sequence lost nothing: the test does not provoke the fault")
	} else {
		t.Logf("%d messages; a cursor over the sequence lost %d of them", want, lost)
	}
}

// turns lets writers wait for turns of the relay.
type turns struct {
	mu   sync.Mutex
	next chan struct{}
}

func newTurns() *turns { return &turns{next: make(chan struct{})} }

func (c *turns) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.next)
	c.next = make(chan struct{})
}

func (c *turns) wait(ctx context.Context, n int) {
	for range n {
		c.mu.Lock()
		next := c.next
		c.mu.Unlock()
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}

// stepping is a clock that goes on by step each time it is asked, by whichever goroutine.
func stepping(step time.Duration) func() time.Time {
	start := time.Now()
	var asked atomic.Int64
	return func() time.Time { return start.Add(time.Duration(asked.Add(1)) * step) }
}

// A page looks at stride times a batch of positions: more turns would be walks over what is published.
func TestALargeWindowBehindAnOpenTransactionIsReadFromWhereItBegins(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 2, Lease: 10 * time.Minute, Now: stepping(100 * time.Second)})
	open := begin(t, pool, "open")
	for range 200 {
		commit(t, pool, "a")
	}
	settle(t, r)
	for range 2 { // of the second look it is known what had been drawn by then
		commit(t, pool, "a")
		turn(t, r)
	}
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, pool, "b", "b", "b", "b")
	r2, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 2})
	turns := 1
	for turn(t, r2) {
		turns++
	}
	if turns > 4 {
		t.Errorf("a window of two pages took %d turns", turns)
	}
	if err := open.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, pool, "c", "c", "c")
	settle(t, r2)
	if got := w.ids()[202:]; !slices.Equal(got, []string{"b-1", "b-2", "b-3", "b-4", "open-1", "c-1", "c-2", "c-3"}) {
		t.Errorf("published behind the first 202: %v", got)
	}
}

// xmax of a snapshot is behind the last transaction that has ended, not the last that began: the
// open one here has drawn its position before the relay looks, and stands in no list.
func TestATransactionBehindXmaxThatDrewBeforeTheLookIsNotLost(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 2})
	older := begin(t, pool, "older")
	settle(t, r)
	open := begin(t, pool, "open")
	for _, tx := range []pgx.Tx{older, open} {
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		turn(t, r)
	}
	settle(t, r)
	same(t, "published", w.ids(), "older-1", "open-1")
}
