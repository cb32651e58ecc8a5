package outbox_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"payments/internal/outbox"
)

func TestACrashBetweenPublishingAndTheCheckpointSendsAgainInSequence(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	killed, _ := relay(t, pool, w, outbox.RelayConfig{Checkpoint: time.Hour})
	commit(t, pool, "a", "b")
	turn(t, killed) // the first checkpoint is never too early, the next one here is
	commit(t, pool, "a", "a", "b")
	turn(t, killed)
	commit(t, pool, "b")

	successor, _ := relay(t, pool, w, outbox.RelayConfig{})
	turn(t, successor)
	if len(successor.Owned()) > 0 {
		t.Error("the shard was taken while its lease ran")
	}
	expire(t, owner)
	successor.Heartbeat()
	turn(t, successor)
	same(t, "on the wire", w.ids(), "a-1", "b-1", "a-2", "a-3", "b-2", "a-2", "a-3", "b-2", "b-3")
	if first, again := w.inSequence(t); first != 6 || again != 3 {
		t.Errorf("%d messages, %d again; want 6 and 3", first, again)
	}
}

func TestAZombieIsFenced(t *testing.T) {
	pool, owner := database(t)
	w, w2 := &wire{}, &wire{}
	zombie, reg := relay(t, pool, w, outbox.RelayConfig{})
	successor, reg2 := relay(t, pool, w2, outbox.RelayConfig{})
	commit(t, pool, "a")
	w.before = func([]outbox.Message) error { // it stands still here past its lease
		expire(t, owner)
		turn(t, successor)
		commit(t, pool, "a")
		turn(t, successor)
		return nil
	}
	turn(t, zombie)
	if got := metric(t, reg, "payments_relay_fenced_total"); got != 1 {
		t.Errorf("%v checkpoints of the zombie were refused, want 1", got)
	}
	if got := metric(t, reg, "payments_relay_shards_owned"); got != 0 {
		t.Error("the zombie believes that it owns the shard")
	}
	w.before = nil
	commit(t, pool, "a")
	turn(t, zombie) // it owns nothing: nothing happens
	same(t, "the zombie sent", w.ids(), "a-1")
	turn(t, successor)
	same(t, "its successor sent", w2.ids(), "a-1", "a-2", "a-3")
	if got := metric(t, reg2, "payments_relay_shards_claimed_total"); got != 1 {
		t.Errorf("the successor claimed %v shards, want 1", got)
	}

	if err := zombie.Release(t.Context()); err != nil {
		t.Errorf("Release of what it does not own: %v", err)
	}
	if err := successor.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, pool, "a")
	turn(t, zombie) // given back, the shard can be had at once
	same(t, "sent after the release", w.ids(), "a-1", "a-4")
}

// Whoever owned a shard wrote the truth: what its checkpoint covers is published. But a late one
// of an older epoch must not count, or the cursor goes back.
func TestALateCheckpointOfAnOlderEpochDoesNotCount(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	commit(t, pool, "a")
	turn(t, r)
	execute(t, owner, `INSERT INTO outbox_checkpoints (shard, epoch, done) SELECT shard, epoch - 1, '1:1:' FROM outbox_shards`)
	naive := query[string](t, pool, `SELECT done::text FROM outbox_checkpoints ORDER BY n DESC LIMIT 1`)
	if naive != "1:1:" {
		t.Errorf("by the order of writing the cursor would be %s: the test does not provoke the fault", naive)
	}
	if got := query[string](t, pool, `SELECT done::text FROM outbox_cursors`); got == "1:1:" {
		t.Error("the cursor went back to a zombie's")
	}
}

// Two processes with one name, as when a host comes back: the epoch alone tells them apart.
func TestTheSameOwnerTakesOverAtOnceUnderANewEpoch(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	c := outbox.RelayConfig{Owner: "host-1"}
	before, reg := relay(t, pool, w, c)
	after, _ := relay(t, pool, w, c)
	turn(t, before)
	turn(t, after)
	commit(t, pool, "a")
	turn(t, before)
	if got := metric(t, reg, "payments_relay_fenced_total"); got != 1 {
		t.Errorf("%v checkpoints of the older process were refused, want 1", got)
	}
	turn(t, after)
	same(t, "sent, the second time by the newer process", w.ids(), "a-1", "a-1")
}

// It stands still while a batch is on its way; the next one, handed out under the
// same lease, is not sent any more.
func TestAnOwnerWhoseLeaseHasEndedSendsNothing(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	var later atomic.Int64
	r, _ := relay(t, pool, w, outbox.RelayConfig{
		Batch: 1, Patience: time.Millisecond, Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) },
	})
	stopped := make(chan struct{})
	w.before = func([]outbox.Message) error {
		<-stopped
		later.Store(int64(time.Hour))
		return nil
	}
	commit(t, pool, "a", "a", "a")
	for range 2 {
		if _, err := r.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(stopped)
	await(t, "both batches are done with", func() bool { r.Idle(t.Context()); return !r.Busy() })
	same(t, "sent", w.ids(), "a-1")
}

func TestOneShardsTroubleHoldsNoOther(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	r, reg := relay(t, pool, w, outbox.RelayConfig{Shards: 4, Measure: time.Nanosecond})
	bad := outbox.Hash("a") % 4
	away := errors.New("away")
	w.before = func(msgs []outbox.Message) error {
		if outbox.Hash(msgs[0].Key)%4 == bad {
			return away
		}
		return nil
	}
	good := []string{}
	for _, key := range []string{"b", "c", "d", "e", "f", "g", "h"} {
		if outbox.Hash(key)%4 != bad {
			good = append(good, key)
		}
	}
	commit(t, pool, "a")
	execute(t, owner, `UPDATE outbox SET created_at = now() - interval '1000 s'`)
	for range 3 {
		commit(t, pool, good...)
		turn(t, r)
	}
	turn(t, r)
	if first, again := w.inSequence(t); first != 3*len(good) || again != 0 {
		t.Errorf("%d messages of the other shards were sent, %d twice; want %d", first, again, 3*len(good))
	}
	if got := metric(t, reg, "payments_relay_shards_failing"); got != 1 {
		t.Errorf("%v shards fail, want 1", got)
	}
	if got := metric(t, reg, "payments_outbox_oldest_unpublished_seconds"); got < 1000 || got > 1100 {
		t.Errorf("the oldest unpublished is %v s old, want 1000", got)
	}
	w.before = nil
	await(t, "the shard comes back", func() bool {
		turn(t, r)
		first, _ := w.inSequence(t)
		return first == 1+3*len(good)
	})
	turn(t, r)
	if got := metric(t, reg, "payments_outbox_oldest_unpublished_seconds"); got != 0 {
		t.Errorf("the oldest unpublished is %v s old, want 0", got)
	}
}

// Batches are handed out ahead: one that stands behind a failed one must not be sent
// before that one is.
func TestWhatStandsBehindAFailedBatchIsNotSent(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 1, Patience: time.Millisecond})
	handed := make(chan struct{})
	var once sync.Once
	w.before = func([]outbox.Message) (err error) {
		once.Do(func() {
			<-handed
			err = errors.New("away")
		})
		return err
	}
	commit(t, pool, "a", "a", "a")
	for range 2 {
		if _, err := r.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(handed)
	await(t, "all three are published", func() bool {
		_, _ = r.RunOnce(t.Context()) // the only shard is in trouble
		r.Idle(t.Context())
		return len(w.ids()) >= 3
	})
	same(t, "on the wire", w.ids(), "a-1", "a-2", "a-3")
}

// A partition's leader that answers nothing is left alone with its batch.
func TestASilentShardHoldsNoOther(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	silent := make(chan struct{})
	w.before = func(msgs []outbox.Message) error {
		if msgs[0].Key == "a" {
			<-silent
		}
		return nil
	}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 4, Patience: time.Millisecond})
	other := otherShard("a", 4)
	for range 5 {
		commit(t, pool, "a", other)
		if _, err := r.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "five messages of the other shard", func() bool {
		_, err := r.RunOnce(t.Context())
		return err == nil && len(w.ids()) == 5
	})
	close(silent)
	await(t, "five of the silent one", func() bool {
		_, err := r.RunOnce(t.Context())
		return err == nil && len(w.ids()) == 10
	})
	if _, again := w.inSequence(t); again != 0 {
		t.Errorf("%d messages were sent twice", again)
	}
}

func otherShard(key string, shards int32) string {
	for c := 'b'; ; c++ {
		if outbox.Hash(string(c))%shards != outbox.Hash(key)%shards {
			return string(c)
		}
	}
}

// A server that crashed gives transaction ids out anew that had written nothing,
// and takes every connection with it: a cursor lives no longer than its connection.
func TestWithItsConnectionARelayLosesItsMemory(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, reg := relay(t, pool, w, outbox.RelayConfig{Checkpoint: time.Hour})
	commit(t, pool, "a")
	turn(t, r)
	commit(t, pool, "a")
	turn(t, r)
	r.Disconnect()
	if _, err := r.RunOnce(t.Context()); err == nil {
		t.Error("the relay did not see its connection end")
	}
	turn(t, r)
	same(t, "sent, the second time from the checkpoint", w.ids(), "a-1", "a-2", "a-2")
	if got := metric(t, reg, "payments_relay_shards_claimed_total"); got != 2 {
		t.Errorf("the shard was claimed %v times, want 2", got)
	}
}

func TestAPanicOfThePublisherIsAnErrorOfItsShard(t *testing.T) {
	pool, _ := database(t)
	w := &wire{before: func([]outbox.Message) error { panic("wrong") }}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	commit(t, pool, "a")
	if _, err := r.RunOnce(t.Context()); err == nil {
		t.Error("RunOnce = nil, though the only shard cannot publish")
	}
}

func TestOldestUnpublishedBeforeTheFirstRelay(t *testing.T) {
	pool, owner := database(t)
	commit(t, pool, "a")
	execute(t, owner, `UPDATE outbox SET created_at = now() - interval '1 hour'`)
	if age, err := outbox.OldestUnpublished(t.Context(), pool); err != nil || age < time.Hour {
		t.Errorf("OldestUnpublished = %v, %v; want an hour", age, err)
	}
}

func TestOldestUnpublishedLooksInsideAWindow(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Batch: 2})
	age := func(id string, seconds int) {
		t.Helper()
		execute(t, owner, `UPDATE outbox SET created_at = now() - make_interval(secs => $2) WHERE id = $1`, id, seconds)
	}
	oldest := func(want time.Duration) {
		t.Helper()
		got, err := outbox.OldestUnpublished(t.Context(), pool)
		if err != nil || got < want || got > want+time.Minute {
			t.Errorf("OldestUnpublished = %v, %v; want %v", got, err, want)
		}
	}
	commit(t, pool, "a", "b")
	early := begin(t, pool, "early") // a transaction that runs in every snapshot from here on
	commit(t, pool, "c")
	age("a-1", 3000)
	oldest(3000 * time.Second)
	age("c-1", 1000)
	turn(t, r)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	oldest(1000 * time.Second) // a full batch is out, c waits inside the window
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	age("early-1", 2000)
	oldest(2000 * time.Second) // which the window does not see
	settle(t, r)
	oldest(0)
	same(t, "published", w.ids(), "a-1", "b-1", "c-1", "early-1")
}

func TestAnOpenTransactionIsTold(t *testing.T) {
	pool, _ := database(t)
	begin(t, pool, "a")
	holders, err := outbox.XminHolders(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	if len(holders) != 1 || holders[0].By != "session" || holders[0].Name == "" || holders[0].Age <= 0 {
		t.Errorf("holders = %+v, want the session of the open transaction", holders)
	}
}

func TestNewRelayRefusesWhatIsMissing(t *testing.T) {
	if _, err := outbox.NewRelay(nil, nil, outbox.RelayConfig{}); err == nil {
		t.Error("NewRelay took nothing for a relay")
	}
	pool, _ := database(t)
	if _, err := outbox.NewRelay(pool, &wire{}, outbox.RelayConfig{}); err == nil {
		t.Error("NewRelay took a relay without a logger")
	}
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
