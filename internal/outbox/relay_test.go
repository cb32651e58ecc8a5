package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"payments/internal/outbox"
	"payments/internal/postgres"
)

func TestWhatIsAppendedIsWhatIsPublished(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	msgs := []outbox.Message{
		{MerchantID: "m", ID: "1", Topic: "events", Key: "ä", Sequence: 1, Headers: []outbox.Header{
			{Key: "twice", Value: "<&>"}, {Key: "another", Value: ""}, {Key: "twice", Value: "\"é\\\n"},
		}, Payload: []byte("\x00\xff{}")},
		{MerchantID: "m", ID: "2", Topic: "other", Key: "ä", Sequence: 2, Headers: []outbox.Header{}, Payload: []byte{}},
	}
	if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		return errors.Join(outbox.Append(t.Context(), tx, msgs...), outbox.Append(t.Context(), tx))
	}); err != nil {
		t.Fatal(err)
	}
	turn(t, r)
	if diff := cmp.Diff(msgs, w.sent); diff != "" {
		t.Error(diff)
	}
}

func TestAppendRefuses(t *testing.T) {
	pool, _ := database(t)
	for name, spoil := range map[string]func(*outbox.Message){
		"no merchant":     func(m *outbox.Message) { m.MerchantID = "" },
		"no id":           func(m *outbox.Message) { m.ID = "" },
		"no topic":        func(m *outbox.Message) { m.Topic = "" },
		"no key":          func(m *outbox.Message) { m.Key = "" },
		"sequence 0":      func(m *outbox.Message) { m.Sequence = 0 },
		"nameless header": func(m *outbox.Message) { m.Headers = []outbox.Header{{Value: "v"}} },
		"NUL in a header": func(m *outbox.Message) { m.Headers = []outbox.Header{{Key: "k", Value: "\x00"}} },
		"bytes that are no text in a header": func(m *outbox.Message) {
			m.Headers = []outbox.Header{{Key: "k", Value: "\xff"}}
		},
	} {
		m := message("k", 1)
		spoil(&m)
		err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			return outbox.Append(t.Context(), tx, m)
		})
		if err == nil || postgres.DataError(err) {
			t.Errorf("%s: Append = %v, want an error of its own", name, err)
		}
	}
	commit(t, pool, "k")
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		m := message("k", 1)
		m.ID = "another"
		return outbox.Append(t.Context(), tx, m)
	})
	if got := postgres.Constraint(err); got != "outbox_one_event_a_sequence" {
		t.Errorf("a sequence given twice: %v", err)
	}
}

func TestACrashBetweenPublishingAndTheCheckpointSendsAgainInSequence(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	commit(t, pool, "a", "b")
	turn(t, r)
	commit(t, pool, "a", "a", "b")
	expire(t, owner)
	crashing, _ := relay(t, pool, crash{w}, outbox.RelayConfig{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the relay did not crash")
			}
		}()
		_, _ = crashing.Turn(t.Context())
	}()
	commit(t, pool, "b")

	successor, reg := relay(t, pool, w, outbox.RelayConfig{})
	turn(t, successor)
	if got := metric(t, reg, "payments_relay_leader"); got != 0 {
		t.Error("the lease was taken while it ran")
	}
	expire(t, owner)
	turn(t, successor)
	turn(t, successor)
	same(t, "on the wire", w.ids(), "a-1", "b-1", "a-2", "a-3", "b-2", "a-2", "a-3", "b-2", "b-3")
	if first, again := w.inSequence(t); first != 6 || again != 3 {
		t.Errorf("%d messages, %d again; want 6 and 3", first, again)
	}
}

// crash sends, and dies before it can say so.
type crash struct{ *wire }

func (c crash) Publish(ctx context.Context, msgs []outbox.Message) error {
	_ = c.wire.Publish(ctx, msgs)
	panic("killed")
}

func TestAZombieIsFenced(t *testing.T) {
	pool, owner := database(t)
	w, w2 := &wire{}, &wire{}
	zombie, reg := relay(t, pool, w, outbox.RelayConfig{})
	successor, _ := relay(t, pool, w2, outbox.RelayConfig{})
	commit(t, pool, "a")
	w.before = func([]outbox.Message) error { // it stands still here past its lease
		expire(t, owner)
		turn(t, successor)
		commit(t, pool, "a")
		turn(t, successor)
		return nil
	}
	if _, err := zombie.Turn(t.Context()); !errors.Is(err, outbox.ErrFenced) {
		t.Fatalf("the zombie's turn = %v, want ErrFenced", err)
	}
	if got := metric(t, reg, "payments_relay_leader"); got != 0 {
		t.Error("the zombie believes that it leads")
	}
	w.before = nil
	commit(t, pool, "a")
	turn(t, zombie) // it does not lead: nothing happens
	same(t, "the zombie sent", w.ids(), "a-1")
	turn(t, successor)
	same(t, "its successor sent", w2.ids(), "a-1", "a-2", "a-3")

	if err := zombie.Release(t.Context()); err != nil {
		t.Errorf("Release of what it does not have: %v", err)
	}
	if err := successor.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, pool, "a")
	turn(t, zombie) // released, the lease can be had at once
	same(t, "sent after the release", w.ids(), "a-1", "a-4")
}

// Two processes with one name, as when a host comes back: the later one need not
// wait for the lease's end, and the epoch alone tells them apart.
func TestTheSameOwnerTakesOverAtOnceUnderANewEpoch(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	c := outbox.RelayConfig{Owner: "host-1"}
	before, _ := relay(t, pool, w, c)
	after, _ := relay(t, pool, w, c)
	turn(t, before)
	turn(t, after)
	commit(t, pool, "a")
	if _, err := before.Turn(t.Context()); !errors.Is(err, outbox.ErrFenced) {
		t.Errorf("the turn of the older process = %v, want ErrFenced", err)
	}
	turn(t, after)
	same(t, "sent, the second time by the newer process", w.ids(), "a-1", "a-1")
}

func TestAnIdleLeaderRenewsItsLeaseAndIsFencedThere(t *testing.T) {
	pool, owner := database(t)
	now := time.Now()
	c := outbox.RelayConfig{Now: func() time.Time { return now }, Measure: time.Hour}
	idle, _ := relay(t, pool, &wire{}, c)
	state := func() (s string) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), `SELECT xmin || ' ' || lease_until FROM outbox_relays`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	turn(t, idle)
	acquired := state()
	now = now.Add(2 * time.Second)
	turn(t, idle)
	if state() != acquired {
		t.Error("an idle turn wrote while the lease was young")
	}
	now = now.Add(time.Second)
	turn(t, idle)
	if state() == acquired {
		t.Error("the lease was not renewed past its half")
	}
	expire(t, owner)
	successor, _ := relay(t, pool, &wire{}, outbox.RelayConfig{})
	turn(t, successor)
	now = now.Add(3 * time.Second)
	if _, err := idle.Turn(t.Context()); !errors.Is(err, outbox.ErrFenced) {
		t.Errorf("renewing a lost lease = %v, want ErrFenced", err)
	}
}

func TestAFailedPublishAdvancesNothingAndTheAgeTellsIt(t *testing.T) {
	pool, owner := database(t)
	w := &wire{}
	c := outbox.RelayConfig{Batch: 2, Measure: time.Nanosecond}
	r, reg := relay(t, pool, w, c)
	other, otherReg := relay(t, pool, w, c)
	commit(t, pool, "a", "b")
	away := errors.New("away")
	w.before = func([]outbox.Message) error { return away }
	age := func(id string, seconds int) {
		t.Helper()
		if _, err := owner.Exec(t.Context(),
			`UPDATE outbox SET created_at = now() - make_interval(secs => $2) WHERE id = $1`, id, seconds); err != nil {
			t.Fatal(err)
		}
	}
	oldest := func(want time.Duration) {
		t.Helper()
		if _, err := r.Turn(t.Context()); w.before != nil && !errors.Is(err, away) {
			t.Fatalf("Turn = %v, want the publisher's error", err)
		}
		turn(t, other)
		got, err := other.OldestUnpublished(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for who, got := range map[string]float64{
			"OldestUnpublished":      got.Seconds(),
			"the leader's metric":    metric(t, reg, "payments_outbox_oldest_unpublished_seconds"),
			"the follower's metric ": metric(t, otherReg, "payments_outbox_oldest_unpublished_seconds"),
		} {
			if got < want.Seconds() || got > want.Seconds()+60 {
				t.Errorf("%s = %v s, want %v", who, got, want)
			}
		}
	}
	for range 2 {
		oldest(0)
	}
	early := begin(t, pool, "early") // a transaction that runs in every snapshot from here on
	commit(t, pool, "c")
	age("a-1", 1000)
	age("c-1", 1000)
	oldest(1000 * time.Second)
	if got := metric(t, reg, "payments_outbox_published_total"); got != 0 {
		t.Errorf("published = %v, want 0", got)
	}
	w.before = nil
	oldest(1000 * time.Second) // a full batch is out, c waits inside the window
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	age("early-1", 2000)
	oldest(2000 * time.Second) // c is out, but not early, which this window does not see
	w.before = func([]outbox.Message) error { return away }
	oldest(2000 * time.Second)
	w.before = nil
	oldest(0)
	same(t, "published", w.ids(), "a-1", "b-1", "c-1", "early-1")
}

func TestOldestUnpublishedBeforeTheFirstRelay(t *testing.T) {
	pool, owner := database(t)
	commit(t, pool, "a")
	if _, err := owner.Exec(t.Context(), `UPDATE outbox SET created_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	r, _ := relay(t, pool, &wire{}, outbox.RelayConfig{})
	if age, err := r.OldestUnpublished(t.Context()); err != nil || age < time.Hour {
		t.Errorf("OldestUnpublished = %v, %v; want an hour", age, err)
	}
}

func TestNewRelayRefusesWhatIsMissing(t *testing.T) {
	if _, err := outbox.NewRelay(nil, nil, outbox.RelayConfig{}); err == nil {
		t.Error("NewRelay took nothing for a relay")
	}
}
