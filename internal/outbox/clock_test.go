package outbox_test

import (
	"testing"
	"time"

	"payments/internal/outbox"
)

// The database's clock is set back by an hour (a failover to a machine whose clock is behind, a corrected clock), and a relay
// dies around that time. Its lease ends an hour later by the clock that counts.
func TestShardsOfADeadRelayAreTakenThoughTheClockWentBack(t *testing.T) {
	service, owner := database(t)
	w := &wire{}
	dead, _ := relay(t, service, w, outbox.RelayConfig{Owner: "dead", Lease: time.Second})
	settle(t, dead)
	dead.Kill(t.Context())
	execute(t, owner, `UPDATE outbox_relays SET lease_until = lease_until + interval '1 hour'`) // = the clock goes back by one
	heir, _ := relay(t, service, w, outbox.RelayConfig{Owner: "heir", Lease: time.Second})
	commit(t, service, "k")
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && len(w.ids()) == 0; {
		turn(t, heir)
	}
	if len(w.ids()) == 0 {
		t.Errorf("a minute later nothing is published; the dead one's lease ends in %s",
			query[string](t, owner, `SELECT (lease_until - clock_timestamp())::text FROM outbox_relays WHERE owner = 'dead'`))
	}
}

// A relay that lives keeps its shards when the clock goes back, and one that is dead keeps
// nobody from giving the outbox another number of shards.
func TestALivingRelayKeepsItsShardsThoughTheClockWentBack(t *testing.T) {
	service, owner := database(t)
	w := &wire{}
	now := time.Now()
	clock := func() time.Time { return now }
	alive, _ := relay(t, service, w, outbox.RelayConfig{Owner: "alive", Lease: time.Second, Shards: 2, Now: clock})
	settle(t, alive)
	execute(t, owner, `UPDATE outbox_relays SET lease_until = lease_until + interval '1 hour'`)
	other, _ := relay(t, service, w, outbox.RelayConfig{Owner: "other", Lease: time.Second, Shards: 2, Now: clock})
	for range 20 {
		now = now.Add(200 * time.Millisecond)
		turn(t, alive)
		turn(t, other)
	}
	if a, b := len(alive.Owned()), len(other.Owned()); a != 1 || b != 1 {
		t.Errorf("the two relays own %d and %d shards, want one each", a, b)
	}
	if n := query[int](t, owner, `SELECT count(*) FROM outbox_relays WHERE owner = 'alive'`); n != 1 {
		t.Error("the living relay's lease was ended")
	}
	alive.Kill(t.Context())
	if err := other.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	execute(t, owner, `UPDATE outbox_relays SET lease_until = lease_until + interval '1 hour'`)
	more, _ := relay(t, service, w, outbox.RelayConfig{Owner: "more", Lease: time.Second, Shards: 4, Now: clock})
	if _, err := more.RunOnce(t.Context()); err == nil {
		t.Error("the outbox was divided while a relay's lease lasts")
	}
	now = now.Add(2100 * time.Millisecond)
	turn(t, more)
	if n := query[int](t, owner, `SELECT count(*) FROM outbox_shards`); n != 4 {
		t.Errorf("the outbox has %d shards, want 4", n)
	}
}
