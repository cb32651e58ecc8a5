package inbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// in moves the messages to a partition.
func in(partition int, batch ...Message) []Message {
	for i := range batch {
		batch[i].Partition = partition
	}
	return batch
}

func outcomes(taken []Taken) (all []string) {
	for _, t := range taken {
		why := "ok"
		switch {
		case errors.Is(t.Err, ErrFenced):
			why = "fenced"
		case t.Err != nil:
			why = "failed"
		}
		all = append(all, fmt.Sprint(t.N, " ", why))
	}
	return all
}

// While a rebalance is under way, a process may hold one partition that is another's
// already, and others that are its own still.
func TestAFencedPartitionIsLeftOutAndTheOthersCommit(t *testing.T) {
	pool := database(t)
	batches := func() [][]Message {
		return [][]Message{in(2, message(7, "c", 1)), in(0, message(1, "a", 1), message(2, "a", 2)), in(1, message(1, "b", 1))}
	}
	t.Run("claimed before the batch", func(t *testing.T) {
		old, heir := restart(t, pool, record), restart(t, pool, record)
		for partition := range 3 {
			if _, err := old.Claim(t.Context(), "events", partition, 1, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := heir.Claim(t.Context(), "events", 1, 2, nil); err != nil {
			t.Fatal(err)
		}
		same(t, "outcomes", outcomes(old.ApplyAll(t.Context(), 1, batches())), "1 ok", "2 ok", "0 fenced")
		same(t, "effects", effects(t, pool), "a-1", "a-2", "c-1")
		if n, err := heir.Apply(t.Context(), 2, batches()[2]); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		same(t, "effects", effects(t, pool), "a-1", "a-2", "c-1", "b-1")
		// Again with all: the old process is refused there alone, and what it was is known here.
		same(t, "outcomes", outcomes(old.ApplyAll(t.Context(), 1, batches())), "1 ok", "2 ok", "0 fenced")
		same(t, "effects", effects(t, pool), "a-1", "a-2", "c-1", "b-1")
	})
	t.Run("claimed while the batch is in hand", func(t *testing.T) {
		pool := database(t)
		entered, release := make(chan struct{}), make(chan struct{})
		old := restart(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
			if m.Headers[HeaderID] == "a-1" {
				close(entered)
				<-release
			}
			return record(ctx, tx, m)
		})
		heir := restart(t, pool, record)
		done := make(chan []Taken, 1)
		go func() { done <- old.ApplyAll(t.Context(), 1, batches()) }()
		<-entered
		claimed := make(chan Offset, 1)
		go func() {
			at, err := heir.Claim(t.Context(), "events", 1, 2, nil)
			if err != nil {
				t.Error(err)
			}
			claimed <- at
		}()
		awaitLock(t, pool)
		close(release)
		same(t, "outcomes", outcomes(<-done), "1 ok", "2 ok", "1 ok")
		if at := <-claimed; at.Next != 2 {
			t.Errorf("the heir begins at %d, want behind what was being committed", at.Next)
		}
		same(t, "effects", effects(t, pool), "a-1", "a-2", "b-1", "c-1")
	})
}

// One partition's trouble is its own: a message that cannot be applied blocks its key, and
// one that is worth another attempt stops its partition.
func TestPoisonInOnePartitionHoldsUpNoOther(t *testing.T) {
	pool := database(t)
	var tries atomic.Int64
	consumer := restart(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		switch m.Headers[HeaderID] {
		case "b-1":
			return Permanent(errors.New("never"))
		case "c-2":
			tries.Add(1)
			return errors.New("not today")
		}
		return record(ctx, tx, m)
	}, func(c *Config) { c.MaxAttempts = 2 })
	batches := [][]Message{
		in(0, message(1, "a", 1), message(2, "a", 2)),
		in(1, message(1, "b", 1), message(2, "b", 2), message(3, "x", 1)),
		in(2, message(1, "c", 1), message(2, "c", 2), message(3, "y", 1)),
	}
	same(t, "outcomes", outcomes(consumer.ApplyAll(t.Context(), 1, batches)), "2 ok", "3 ok", "1 failed")
	same(t, "effects", effects(t, pool), "a-1", "a-2", "x-1", "c-1")
	same(t, "dead letters", deadLetters(t, pool), "b-1", "b-2")
	same(t, "outcomes", outcomes(consumer.ApplyAll(t.Context(), 1, [][]Message{in(0, message(3, "a", 3)), batches[2][1:]})), "1 ok", "2 ok")
	same(t, "effects", effects(t, pool), "a-1", "a-2", "x-1", "c-1", "a-3", "y-1")
	same(t, "dead letters", column(t, pool, `SELECT headers->>'ce_id' FROM inbox_parked ORDER BY partition, "offset"`), "b-1", "b-2", "c-2")
}

// Two processes that hold the same partitions during a rebalance, each batch of several of
// them in another order, claim them from each other.
func TestTwoProcessesThatShareAllPartitionsDoNotDeadlock(t *testing.T) {
	const partitions, messages = 4, 12
	pool := database(t)
	var logs [partitions][]Message
	for p := range logs {
		for n := range messages {
			logs[p] = append(logs[p], in(p, message(int64(n), string(rune('a'+p)), n+1))...)
		}
	}
	var generation atomic.Int64
	var working sync.WaitGroup
	for process := range 2 {
		consumer := restart(t, pool, record)
		working.Go(func() {
			for range 25 {
				mine := int(generation.Add(1))
				var batches [][]Message
				for p := range partitions {
					at, err := consumer.Claim(t.Context(), "events", p, mine, nil)
					if errors.Is(err, ErrFenced) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					if from := max(at.Next, 0); from < messages {
						batches = append(batches, logs[p][from:min(from+3, messages)])
					}
				}
				if process == 1 {
					slices.Reverse(batches)
				}
				for _, taken := range consumer.ApplyAll(t.Context(), mine, batches) {
					if taken.Err != nil && !errors.Is(taken.Err, ErrFenced) {
						t.Error(taken.Err) // 40P01 is a deadlock
					}
				}
			}
		})
	}
	working.Wait()
	last := restart(t, pool, record)
	for p, log := range logs {
		at, err := last.Claim(t.Context(), "events", p, int(generation.Add(1)), nil)
		if err != nil {
			t.Fatal(err)
		}
		applyAs(t, last, int(generation.Load()), log[max(at.Next, 0):])
	}
	got := map[string]int{}
	for _, id := range effects(t, pool) {
		key, n, _ := strings.Cut(id, "-")
		if got[key]++; fmt.Sprint(got[key]) != n {
			t.Fatalf("%s came as the effect number %d of its key", id, got[key])
		}
	}
	for p := range logs {
		if key := string(rune('a' + p)); got[key] != messages {
			t.Errorf("key %s has %d effects of %d", key, got[key], messages)
		}
	}
	var deadlocks int
	if err := pool.QueryRow(t.Context(), `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&deadlocks); err != nil || deadlocks > 0 {
		t.Errorf("%d deadlocks (%v)", deadlocks, err)
	}
}

// What was in hand when a process died is tried again in halves, each of which is on
// record before the handler sees it, over all partitions together.
func TestSuspectsOfACrashAreHalvedAndEachHalfIsOnRecordFirst(t *testing.T) {
	const partitions, messages = 3, 40
	pool := database(t)
	var batches [][]Message
	for p := range partitions {
		var batch []Message
		for n := range messages {
			m := message(int64(n), fmt.Sprintf("%c%d", 'a'+p, n), 1)
			batch = append(batch, m)
		}
		batches = append(batches, in(p, batch...))
	}
	const poison = "b17-1"
	calls, deaths, single := 0, 0, 0
	handle := func(ctx context.Context, tx pgx.Tx, batch []Message) error {
		calls++
		// In another session, as the next process would find it.
		var tried int
		if err := pool.QueryRow(ctx, `SELECT sum(tried_until - tried_from) FROM inbox_offsets WHERE attempts > 0`).Scan(&tried); err != nil {
			return err
		}
		if tried < len(batch) {
			return fmt.Errorf("%d messages are in hand and %d on record", len(batch), tried)
		}
		if len(batch) == 1 {
			single++
		}
		for _, m := range batch {
			if m.Headers[HeaderID] == poison {
				runtime.Goexit()
			}
		}
		return each(record)(ctx, tx, batch)
	}
	// The process dies: its goroutine ends in the middle of the transaction, which the
	// database rolls back when the connection is gone.
	run := func(generation int) (died bool) {
		own, err := postgres.Open(t.Context(), pool.Config().ConnString())
		if err != nil {
			t.Fatal(err)
		}
		consumer := restart(t, own, record, func(c *Config) { c.MaxAttempts = 5 })
		consumer.handle = handle
		done := make(chan bool, 1)
		go func() {
			ended := false
			defer func() { done <- !ended }()
			rest := slices.Clone(batches)
			for p := range rest {
				at, err := consumer.Claim(t.Context(), "events", p, generation, nil)
				if err != nil {
					t.Error(err)
				}
				rest[p] = rest[p][max(at.Next, 0):]
			}
			for _, taken := range consumer.ApplyAll(t.Context(), generation, rest) {
				if taken.Err != nil {
					t.Error(taken.Err)
				}
			}
			ended = true
		}()
		died = <-done
		own.Close()
		return died
	}
	for generation := 1; run(generation); generation++ {
		if deaths++; deaths > 6 {
			t.Fatalf("it died %d times", deaths)
		}
	}
	if deaths != 5 {
		t.Errorf("it died %d times, want as many as the message has attempts", deaths)
	}
	same(t, "dead letters", deadLetters(t, pool), poison)
	if got := effects(t, pool); len(got) != partitions*messages-1 {
		t.Errorf("%d effects of %d", len(got), partitions*messages-1)
	}
	if calls > 60 || single > 20 {
		t.Errorf("%d calls of the handler, %d with one message, for %d messages", calls, single, partitions*messages)
	}
	t.Logf("%d deaths, %d calls, %d with one message", deaths, calls, single)
}
