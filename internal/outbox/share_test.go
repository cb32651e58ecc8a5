package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/outbox"
	"payments/internal/postgres"
)

// look lets each relay look at the others once.
func look(t *testing.T, relays ...*outbox.Relay) {
	t.Helper()
	for _, r := range relays {
		r.Heartbeat()
		turn(t, r)
	}
}

func owned(relays ...*outbox.Relay) (counts []int) {
	for _, r := range relays {
		counts = append(counts, len(r.Owned()))
	}
	return counts
}

func TestRelaysShareFairlyWhoeverComesOrGoes(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	c := outbox.RelayConfig{Shards: 8}
	a, _ := relay(t, pool, w, c)
	b, _ := relay(t, pool, w, c)
	d, _ := relay(t, pool, w, c)
	shares := func(when string, relays []*outbox.Relay, want ...int) {
		t.Helper()
		if got := owned(relays...); !slices.Equal(got, want) {
			t.Errorf("%s the shares are %v, want %v", when, got, want)
		}
		free := query[int](t, pool, `SELECT count(*) FROM outbox_shards WHERE owner IS NULL`)
		if sum := query[int](t, pool, `SELECT count(*) FROM outbox_shards`); free != 0 || sum != 8 {
			t.Errorf("%s %d of %d shards are free", when, free, sum)
		}
	}
	look(t, a)
	shares("alone", []*outbox.Relay{a}, 8)
	look(t, b, a, b) // b makes itself known, a gives back, b takes
	shares("after a second has joined", []*outbox.Relay{a, b}, 4, 4)
	look(t, d, a, b, d, a, b, d)
	shares("after a third has joined", []*outbox.Relay{a, b, d}, 3, 3, 2)

	// b drains: the others have its shards when they look next.
	if err := b.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	look(t, a, d)
	shares("after one has drained", []*outbox.Relay{a, d}, 4, 4)

	// d is killed: its lease runs out.
	execute(t, owner, `UPDATE outbox_relays SET lease_until = '-infinity' WHERE owner = $1`, d.Owner)
	look(t, a)
	shares("after one has died", []*outbox.Relay{a}, 8)
	// And comes back from a stop: it finds out by itself.
	look(t, d, a, d)
	shares("after it has come back", []*outbox.Relay{a, d}, 4, 4)
}

// While a relay was without its connection, another joined: what the first one had
// beyond its new share is not to stay its own for as long as it lives.
func TestWhatARelayForgotAndMayNotKeepIsFree(t *testing.T) {
	pool, _ := database(t)
	a, _ := relay(t, pool, &wire{}, outbox.RelayConfig{Shards: 6})
	b, _ := relay(t, pool, &wire{}, outbox.RelayConfig{Shards: 6})
	look(t, a, b)
	a.Disconnect()
	if _, err := a.RunOnce(t.Context()); err == nil {
		t.Fatal("a turn without its connection succeeded")
	}
	look(t, a, b)
	if got := owned(a, b); !slices.Equal(got, []int{3, 3}) {
		t.Errorf("the shares are %v, want 3 and 3", got)
	}
}

// The service is told to stop in the middle of a turn.
func TestARelayThatWasCutOffGivesItsShardsBack(t *testing.T) {
	pool, _ := database(t)
	r, _ := relay(t, pool, &wire{}, outbox.RelayConfig{Shards: 2})
	turn(t, r)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := r.RunOnce(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("RunOnce = %v, want that its context has ended", err)
	}
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, pool, `SELECT (SELECT count(*) FROM outbox_relays) + (SELECT count(*) FROM outbox_shards WHERE owner IS NOT NULL)`); n != 0 {
		t.Errorf("%d leases and shards are still its", n)
	}
}

func TestAnotherNumberOfShardsIsTakenOnceNobodyUsesTheOldOne(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	old, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 3})
	keys := []string{"a", "b", "c", "d", "e", "f", "g"}
	commit(t, pool, keys...)
	turn(t, old)
	fresh, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 5})
	if _, err := fresh.RunOnce(t.Context()); err == nil || !strings.Contains(err.Error(), "3 shards in 1 living relays and is to have 5") {
		t.Errorf("RunOnce = %v, want a sentence that says who uses the shards", err)
	}
	commit(t, pool, keys...)
	turn(t, old)
	if err := old.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, pool, keys...)
	turn(t, fresh)
	if got := len(fresh.Owned()); got != 5 {
		t.Errorf("%d shards are owned, want 5", got)
	}
	if first, again := w.inSequence(t); first != 3*len(keys) || again != 0 {
		t.Errorf("%d messages came, %d twice; want %d", first, again, 3*len(keys))
	}
}

// Three relays turn as fast as they can while eight writers hold their transactions
// open for a while; one relay after another is killed, stopped past its lease, or drained.
func TestNothingIsLostOrInvertedWhileRelaysComeAndGo(t *testing.T) {
	const writers, each, keys = 8, 40, 30
	pool, owner := database(t)
	w := &wire{}
	turned := newTurns()
	var writing sync.WaitGroup
	for n := range writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 7))
			for range each {
				of := []string{fmt.Sprint("k", random.IntN(keys)), fmt.Sprint("k", random.IntN(keys))}
				slices.Sort(of) // no deadlocks
				hold := random.IntN(4)
				if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
					for _, key := range slices.Compact(of) {
						if err := next(t.Context(), tx, key); err != nil {
							return err
						}
					}
					turned.wait(t.Context(), hold)
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	random := rand.New(rand.NewPCG(1, 7))
	c := outbox.RelayConfig{Shards: 6, Batch: 9}
	var living []*outbox.Relay
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for len(living) < 3 {
			r, _ := relay(t, pool, w, c)
			living = append(living, r)
		}
		for _, r := range living {
			r.Heartbeat()
			if _, err := r.RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		turned.add()
		victim := random.IntN(3)
		switch random.IntN(6) {
		case 0: // killed
			expireOne(t, owner, living[victim])
			living[victim].Kill(t.Context())
			living = slices.Delete(living, victim, victim+1)
		case 1: // stopped past its lease, and goes on believing
			expireOne(t, owner, living[victim])
		case 2: // drained
			if err := living[victim].Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			living = slices.Delete(living, victim, victim+1)
		}
	}
	want := query[int](t, pool, `SELECT count(*) FROM outbox`)
	await(t, "everything is published", func() bool {
		for _, r := range living {
			r.Heartbeat()
			turn(t, r)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		first, _, _ := count(w.sent)
		return first == want
	})
	_, again := w.inSequence(t)
	t.Logf("%d messages, %d of them again", want, again)
}

func expireOne(t *testing.T, owner *pgxpool.Pool, r *outbox.Relay) {
	t.Helper()
	execute(t, owner, `UPDATE outbox_relays SET lease_until = clock_timestamp() - interval '1 s' WHERE owner = $1`, r.Owner)
}
