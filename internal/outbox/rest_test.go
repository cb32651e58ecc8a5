package outbox_test

import (
	"sync/atomic"
	"testing"
	"time"

	"payments/internal/outbox"
)

// An outbox that nobody writes to is looked at ten times a second. While messages come, and
// for a second after, it is looked at two hundred times. A hint ends a long rest, once.
func TestARelayRestsLongerWhileNothingComes(t *testing.T) {
	pool, _ := database(t)
	var later atomic.Int64
	r, _ := relay(t, pool, &wire{}, outbox.RelayConfig{
		Lease: time.Hour, Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) },
	})
	woken := func() bool {
		select {
		case <-r.Woken():
			return true
		default:
			return false
		}
	}
	rests := func(when string, want time.Duration) {
		t.Helper()
		if got := r.Rest(); got != want {
			t.Errorf("%s it rests for %v, want %v", when, got, want)
		}
	}
	commit(t, pool, "a")
	settle(t, r)
	rests("after a message", outbox.Longest/20)
	if r.Wake(); woken() {
		t.Error("a hint ended a short rest")
	}
	later.Add(int64(time.Minute))
	settle(t, r)
	rests("a minute later", outbox.Longest)
	if r.Wake(); !woken() {
		t.Error("a hint did not end a long rest")
	}
	if r.Wake(); woken() {
		t.Error("a second hint was kept")
	}
	commit(t, pool, "b")
	settle(t, r)
	rests("after the next message", outbox.Longest/20)
}
