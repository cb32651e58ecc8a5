package outbox_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"payments/internal/outbox"
)

// fences is a broker that accepts what the last fence's publisher sends. during, when
// set, runs within the next fence.
type fences struct {
	wire
	last   atomic.Int64
	during func()
}

var errFenced = errors.New("fenced")

func (f *fences) Fence(context.Context, int32) (outbox.Publisher, error) {
	if during := f.during; during != nil {
		f.during = nil
		during()
	}
	return fenced{f, f.last.Add(1)}, nil
}

type fenced struct {
	*fences
	n int64
}

func (p fenced) Publish(ctx context.Context, msgs []outbox.Message) error {
	if p.n != p.last.Load() {
		return errFenced
	}
	return p.fences.Publish(ctx, msgs)
}

// It stands still between its claim and its fence. What it has got is the newest, and must
// not be used; the owner, who is shut out by it, gets another.
func TestAZombieThatFencesTooLateSendsNothing(t *testing.T) {
	pool, owner := database(t)
	f := &fences{}
	zombie, _ := relay(t, pool, f, outbox.RelayConfig{})
	successor, _ := relay(t, pool, f, outbox.RelayConfig{})
	commit(t, pool, "a", "b")
	f.during = func() {
		expire(t, owner)
		turn(t, successor)
	}
	if _, err := zombie.RunOnce(t.Context()); err == nil {
		t.Error("the zombie sees no trouble with its only shard")
	}
	zombie.Idle(t.Context())
	same(t, "sent by the successor alone", f.ids(), "a-1", "b-1")
	if got := f.last.Load(); got != 2 {
		t.Fatalf("%d fences, want 2", got)
	}
	commit(t, pool, "a")
	await(t, "the owner goes on", func() bool {
		_, _ = successor.RunOnce(t.Context()) // its only shard is in trouble at first
		successor.Idle(t.Context())
		return len(f.ids()) >= 3
	})
	same(t, "sent", f.ids(), "a-1", "b-1", "a-2")
}

func TestAFenceHoldsUntilAnErrorOrADayLater(t *testing.T) {
	pool, _ := database(t)
	f := &fences{}
	var later atomic.Int64
	r, _ := relay(t, pool, f, outbox.RelayConfig{Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	had := func(want int64) {
		t.Helper()
		commit(t, pool, "a")
		n := len(f.ids())
		await(t, "the message is sent", func() bool {
			_, _ = r.RunOnce(t.Context())
			r.Idle(t.Context())
			return len(f.ids()) > n
		})
		if got := f.last.Load(); got != want {
			t.Errorf("%d fences, want %d", got, want)
		}
	}
	had(1)
	had(1)
	var once atomic.Bool
	f.before = func([]outbox.Message) error {
		if once.CompareAndSwap(false, true) {
			return errors.New("in doubt")
		}
		return nil
	}
	had(2)
	had(2)
	later.Store(int64(25 * time.Hour))
	had(3)
	had(3)
}
