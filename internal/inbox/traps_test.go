package inbox

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/postgres"
)

// Each test here holds a trap that was seen in a mature system, and shows that
// the naive consumer falls into it.

// naive applies each message with handle in a transaction of its own, and blocks
// nothing. What tells it that it has had a message is up to the test.
func naive(t *testing.T, pool *pgxpool.Pool, had func(m Message) bool, batch ...Message) {
	t.Helper()
	for _, m := range batch {
		if had(m) {
			continue
		}
		if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error { return record(t.Context(), tx, m) }); err != nil {
			t.Fatal(err)
		}
	}
}

// Rebalance duplicate: a process that was stopped between its fetch and its
// commit wakes up when its partition has long been another's.
func TestTrapAZombieIsRefusedAfterARebalance(t *testing.T) {
	batch := []Message{message(0, "a", 1), message(1, "b", 1)}
	t.Run("naive", func(t *testing.T) {
		pool := database(t)
		committed := int64(0) // by the consumer group, as both processes knew it when they began
		both := func(m Message) bool { return m.Offset < committed }
		naive(t, pool, both, batch...) // the heir
		naive(t, pool, both, batch...) // the zombie, which holds the batch still
		same(t, "effects", effects(t, pool), "a-1", "b-1", "a-1", "b-1")
	})
	pool := database(t)
	zombie, heir := restart(t, pool, record), restart(t, pool, record)
	if _, err := zombie.Claim(t.Context(), "events", 0, 1, nil); err != nil {
		t.Fatal(err)
	}
	if next, err := heir.Claim(t.Context(), "events", 0, 2, nil); err != nil || next.Next != -1 {
		t.Fatalf("the heir's claim: %d, %v", next.Next, err)
	}
	// Not even what is new to everybody.
	for _, behind := range [][]Message{batch, {message(5, "c", 1)}} {
		if n, err := zombie.Apply(t.Context(), 1, behind); n != 0 || !errors.Is(err, ErrFenced) {
			t.Fatalf("the zombie applied %d (%v)", n, err)
		}
	}
	if n, err := heir.Apply(t.Context(), 2, batch); n != 2 || err != nil {
		t.Fatalf("the heir: %d, %v", n, err)
	}
	if n, err := zombie.Apply(t.Context(), 1, batch); n != 0 || !errors.Is(err, ErrFenced) {
		t.Fatalf("the zombie applied %d (%v)", n, err)
	}
	same(t, "effects", effects(t, pool), "a-1", "b-1")
	if next, err := heir.Claim(t.Context(), "events", 0, 3, nil); err != nil || next != (Offset{2, "b-1"}) {
		t.Errorf("the next generation begins at %v (%v), want behind what was applied", next, err)
	}
}

// The heir comes while the zombie is inside its batch: it waits for the effects
// that may still be committed, and begins behind them.
func TestTrapTheHeirWaitsForWhatIsBeingCommitted(t *testing.T) {
	pool := database(t)
	entered, release := make(chan struct{}), make(chan struct{})
	last := restart(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		close(entered)
		<-release
		return record(ctx, tx, m)
	})
	heir := restart(t, pool, record)
	done := make(chan error, 2)
	go func() {
		_, err := last.Apply(t.Context(), 1, []Message{message(1, "a", 1)})
		done <- err
	}()
	<-entered
	var next Offset
	go func() {
		var err error
		next, err = heir.Claim(t.Context(), "events", 0, 2, nil)
		done <- err
	}()
	awaitLock(t, pool)
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	same(t, "effects", effects(t, pool), "a-1")
	if next.Next != 2 {
		t.Errorf("the heir begins at %d, want 2", next.Next)
	}
}

// Offset reset: an operator, or a broker that lost the group, sets the consumer
// back to the topic's first message, a year later.
func TestTrapAnOffsetResetAYearLaterAppliesNothingTwice(t *testing.T) {
	year := time.Now().UTC().AddDate(-1, 0, 0)
	topic := []Message{dated(0, year, "a", 1), dated(1, year, "b", 1), dated(2, year, "a", 2)}
	t.Run("naive: rows that expire", func(t *testing.T) {
		pool := database(t)
		ids := map[string]time.Time{}
		now := year
		had := func(m Message) bool {
			at, ok := ids[m.Headers[HeaderID]]
			ids[m.Headers[HeaderID]] = now
			return ok && now.Sub(at) < 30*24*time.Hour
		}
		naive(t, pool, had, topic...)
		now = time.Now()
		naive(t, pool, had, topic...)
		if got := effects(t, pool); len(got) != 6 {
			t.Errorf("effects %v, want each twice", got)
		}
	})
	forget := func(t *testing.T, pool *pgxpool.Pool) {
		t.Helper()
		if err := Maintain(t.Context(), pool, time.Now(), 30*24*time.Hour); err != nil {
			t.Fatal(err)
		}
		same(t, "ids that are kept", column(t, pool, `SELECT message_id FROM inbox_messages`))
	}
	t.Run("a handler with a watermark drops them", func(t *testing.T) {
		pool := database(t)
		in, reg := open(t, pool, recordNext, func(c *Config) { c.Sequenced = true })
		apply(t, in, topic...)
		want := effects(t, pool)
		apply(t, in, topic...) // the ids are there still
		forget(t, pool)
		apply(t, in, topic...)
		same(t, "effects", effects(t, pool), want...)
		same(t, "dead letters", deadLetters(t, pool))
		if got := metric(t, reg, "payments_inbox_applied_total", "duplicate"); got != 3 {
			t.Errorf("duplicates = %v, want those of the first time", got)
		}
	})
	t.Run("for a handler without one they wait for a person", func(t *testing.T) {
		pool := database(t)
		in, _ := open(t, pool, record)
		apply(t, in, topic...)
		forget(t, pool)
		apply(t, in, topic...)
		if got := effects(t, pool); len(got) != 3 {
			t.Errorf("effects %v, want each once", got)
		}
		same(t, "reasons", column(t, pool, `SELECT DISTINCT reason FROM inbox_parked ORDER BY 1`), errOld.Error(), errBehind.Error())
	})
	t.Run("a consumer of the group goes on where the effects stand", func(t *testing.T) {
		pool := database(t)
		apply(t, restart(t, pool, record), topic...)
		next, err := restart(t, pool, record).Claim(t.Context(), "events", 0, 2, nil)
		if err != nil || next.Next != 3 {
			t.Errorf("it begins at %d (%v), want 3", next.Next, err)
		}
	})
}

// Dead-letter order: a topic for what failed lets the later messages of the key
// pass, and its replay puts the first behind them.
func TestTrapAReplayFromTheDeadLettersKeepsTheKeysOrder(t *testing.T) {
	batch := []Message{message(0, "a", 1), message(1, "b", 1), message(2, "a", 2), message(3, "b", 2), message(4, "a", 3)}
	broken := true
	fails := func(m Message) bool { return broken && m.Headers[HeaderID] == "a-2" }
	t.Run("naive", func(t *testing.T) {
		pool := database(t)
		var dead []Message
		naive(t, pool, func(m Message) bool {
			if fails(m) {
				dead = append(dead, m)
			}
			return fails(m)
		}, batch...)
		broken = false
		naive(t, pool, fails, dead...)
		same(t, "effects", effects(t, pool), "a-1", "b-1", "b-2", "a-3", "a-2")
	})
	broken = true
	pool := database(t)
	in := restart(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		if fails(m) {
			return Permanent(errors.New("a fault in the code"))
		}
		return record(ctx, tx, m)
	})
	apply(t, in, batch...)
	apply(t, in, message(5, "a", 4), message(6, "b", 3))
	same(t, "others flow", effects(t, pool), "a-1", "b-1", "b-2", "b-3")
	letters := NewDeadLetters(pool, in)
	if all, err := letters.ReplayAll(t.Context(), BlockedFilter{}); err != nil || len(all) != 1 || all[0].Released || all[0].Remaining != 3 {
		t.Fatalf("a replay before the fix: %+v, %v", all, err)
	}
	broken = false
	all, err := letters.ReplayAll(t.Context(), BlockedFilter{})
	if err != nil || len(all) != 1 || !all[0].Released || all[0].Applied != 3 {
		t.Fatalf("a replay after the fix: %+v, %v", all, err)
	}
	apply(t, in, message(7, "a", 5))
	same(t, "effects", effects(t, pool), "a-1", "b-1", "b-2", "b-3", "a-2", "a-3", "a-4", "a-5")
	apply(t, in, batch...)
	same(t, "after the topic came again", effects(t, pool), "a-1", "b-1", "b-2", "b-3", "a-2", "a-3", "a-4", "a-5")
}

// Dedup window: a cache of the last so many ids, or of those of the last hour,
// forgets what a long replay brings back.
func TestTrapNoWindowBoundsDeduplication(t *testing.T) {
	var topic []Message
	for n := range 300 {
		topic = append(topic, message(int64(n), "k", n))
	}
	pool := database(t)
	var window []string
	naive(t, pool, func(m Message) bool {
		id := m.Headers[HeaderID]
		if slices.Contains(window, id) {
			return true
		}
		window = append(window, id)
		if len(window) > 100 {
			window = window[1:]
		}
		return false
	}, append(topic, topic...)...)
	if got := effects(t, pool); len(got) != 600 {
		t.Errorf("a window of 100 ids lets %d effects of 300 happen, want it to show the trap", len(got))
	}
	pool = database(t)
	in := restart(t, pool, record)
	apply(t, in, topic...)
	apply(t, in, topic...)
	if got := effects(t, pool); len(got) != 300 {
		t.Errorf("%d effects of 300 messages", len(got))
	}
}
