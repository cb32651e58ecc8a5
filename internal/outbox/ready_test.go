package outbox_test

import (
	"sync/atomic"
	"testing"
	"time"

	"payments/internal/outbox"
)

// The topic cannot be made, since Kafka is away from the start. A relay that waits for the
// topic before anything else says that the oldest unpublished message is 0 s old.
func TestARelayThatMayNotSendHoldsItsShardsAndMeasures(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	// An earlier process has divided the outbox.
	before, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 4})
	settle(t, before)
	if err := before.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	var ready atomic.Bool
	r, reg := relay(t, pool, w, outbox.RelayConfig{Shards: 4, Measure: time.Nanosecond, Ready: ready.Load})
	commit(t, pool, "a", "b", "c")
	execute(t, owner, `UPDATE outbox SET created_at = now() - interval '1000 s'`)
	settle(t, r)
	same(t, "sent before the topic is there", w.ids())
	if got := metric(t, reg, "payments_relay_shards_owned"); got != 4 {
		t.Errorf("%v shards are owned, want 4", got)
	}
	if got := metric(t, reg, "payments_outbox_oldest_unpublished_seconds"); got < 1000 || got > 1100 {
		t.Errorf("the oldest unpublished is %v s old, want 1000", got)
	}
	ready.Store(true)
	settle(t, r)
	same(t, "sent", sorted(w.ids()), "a-1", "b-1", "c-1")
}

// The number of shards follows the topic's partitions. It is not changed before the topic
// was seen to have as many.
func TestARelayThatMayNotSendDoesNotDivideTheOutbox(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	before, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 2})
	settle(t, before)
	if err := before.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	var ready atomic.Bool
	r, reg := relay(t, pool, w, outbox.RelayConfig{Shards: 4, Measure: time.Nanosecond, Ready: ready.Load})
	commit(t, pool, "a")
	settle(t, r)
	if n := query[int](t, owner, `SELECT count(*) FROM outbox_shards`); n != 2 {
		t.Errorf("the outbox has %d shards, want 2 as before", n)
	}
	if got := metric(t, reg, "payments_outbox_oldest_unpublished_seconds"); got < 0 {
		t.Errorf("the oldest unpublished is %v s old", got)
	}
	ready.Store(true)
	settle(t, r)
	if n := query[int](t, owner, `SELECT count(*) FROM outbox_shards`); n != 4 {
		t.Errorf("the outbox has %d shards, want 4", n)
	}
	same(t, "sent", w.ids(), "a-1")
}

// Nothing is known before the first measurement, and what is known grows while it cannot
// be measured again.
func TestTheAgeOfTheOldestUnpublishedIsNeverToldAsZeroUnmeasured(t *testing.T) {
	pool, owner := database(t)
	commit(t, pool, "a")
	execute(t, owner, `UPDATE outbox SET created_at = now() - interval '1000 s'`)
	var later atomic.Int64
	r, reg := relay(t, pool, &wire{}, outbox.RelayConfig{
		Measure: time.Nanosecond, Ready: func() bool { return false },
		Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) },
	})
	has := func() bool {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "payments_outbox_oldest_unpublished_seconds" {
				return true
			}
		}
		return false
	}
	execute(t, owner, `ALTER TABLE outbox_cursors RENAME TO cursors_that_are_away`)
	if _, err := r.RunOnce(t.Context()); err == nil || has() {
		t.Errorf("it cannot be measured (%v), and has a value: %v", err, has())
	}
	execute(t, owner, `ALTER TABLE cursors_that_are_away RENAME TO outbox_cursors`)
	settle(t, r)
	if got := metric(t, reg, "payments_outbox_oldest_unpublished_seconds"); got < 1000 || got > 1100 {
		t.Errorf("the oldest unpublished is %v s old, want 1000", got)
	}
	execute(t, owner, `ALTER TABLE outbox_cursors RENAME TO cursors_that_are_away`)
	later.Store(int64(time.Hour))
	if _, err := r.RunOnce(t.Context()); err == nil {
		t.Error("it was measured")
	}
	if got := metric(t, reg, "payments_outbox_oldest_unpublished_seconds"); got < 4600 || got > 4700 {
		t.Errorf("the oldest unpublished is %v s old an hour later, want 4600", got)
	}
	execute(t, owner, `ALTER TABLE cursors_that_are_away RENAME TO outbox_cursors`)
}
