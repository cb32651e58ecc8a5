package outbox_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/devstack"
	"payments/internal/outbox"
)

// burn gives out so many transaction ids.
func burn(t *testing.T, owner *pgxpool.Pool, n int) {
	t.Helper()
	execute(t, owner, `CREATE OR REPLACE PROCEDURE burn(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`)
	execute(t, owner, `CALL burn($1)`, n)
}

// restored is the owner's database, dumped and restored into a fresh cluster.
func restored(t *testing.T, from *pgxpool.Pool) (service, owner *pgxpool.Pool) {
	t.Helper()
	fresh, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fresh.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := fresh.Provision(t.Context(), "restored"); err != nil {
		t.Fatal(err)
	}
	dump := t.TempDir() + "/dump"
	for _, c := range [][]string{
		{"pg_dump", "-Fc", "-f", dump, from.Config().ConnString()},
		{"pg_restore", "--exit-on-error", "-d", fresh.URL("postgres", "restored"), dump},
	} {
		if out, err := exec.CommandContext(t.Context(), c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c[0], err, out)
		}
	}
	return open(t, fresh.URL(devstack.ServiceRole, "restored")), open(t, fresh.URL(devstack.OwnerRole, "restored"))
}

// proven counts the messages that a checkpoint says are published.
const proven = `
	SELECT count(*) FROM outbox o WHERE EXISTS (SELECT FROM outbox_cursors c
		WHERE c.shard = o.key_hash % (SELECT count(*)::int FROM outbox_shards) AND pg_visible_in_snapshot(o.xid, c.done))`

// Everything was published before the dump. The dump is restored into a cluster that has
// given out fewer transaction ids, as any fresh one, and a payment is accepted before the relay's first poll.
func TestADumpRestoredIntoAFreshClusterLosesNoEvent(t *testing.T) {
	service, owner := database(t)
	burn(t, owner, 20000)
	w := &wire{}
	r, _ := relay(t, service, w, outbox.RelayConfig{Owner: "old"})
	commit(t, service, "before", "before")
	settle(t, r)
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, "before the dump", w.ids(), "before-1", "before-2")

	service, owner = restored(t, owner)
	commit(t, service, "new")    // the API is up
	commit(t, service, "before") // a saga goes on: its order's third event
	r, metrics := relay(t, service, w, outbox.RelayConfig{Owner: "new", Lease: time.Second, Measure: time.Nanosecond})
	if _, err := r.RunOnce(t.Context()); !errors.Is(err, outbox.ErrOtherServer) || strings.ContainsRune(err.Error(), '\n') {
		t.Fatalf("the relay goes on, or does not say why it stops: %v", err)
	}
	if n := metric(t, metrics, "payments_outbox_unproven"); n != 1 {
		t.Errorf("payments_outbox_unproven = %v while the relay stops", n)
	}
	if n := query[int](t, owner, proven); n != 0 {
		t.Errorf("%d of 4 events count as published on another server", n)
	}
	if age, err := outbox.OldestUnpublished(t.Context(), service); err != nil || age == 0 {
		t.Errorf("the oldest unpublished event is %s old (%v)", age, err)
	}
	execute(t, owner, `UPDATE outbox_partitions SET closed_xid = '20000', closed_at = now() - interval '1 year' WHERE parent = 'outbox' AND low = 1`)
	if state := query[string](t, owner, `SELECT state FROM outbox_retire('outbox', '1 s')`); state != "transaction" && state != "shard" {
		t.Errorf("before the reset, retention says %q of a partition that nobody has proven to be published", state)
	}

	if _, err := outbox.Reset(t.Context(), service, time.Time{}); !errors.Is(err, outbox.ErrNotOwner) {
		t.Errorf("a reset by the service's role: %v", err)
	}
	if _, err := outbox.Reset(t.Context(), owner, time.Time{}); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	if n := metric(t, metrics, "payments_outbox_unproven"); n != 0 {
		t.Errorf("payments_outbox_unproven = %v after the reset", n)
	}
	commit(t, service, "later")
	commit(t, service, "before") // and its fourth
	settle(t, r)
	if first, _ := w.inSequence(t); first != 6 {
		t.Errorf("%d of 6 events were ever sent", first)
	}
	if n := query[int](t, owner, proven); n != 6 {
		t.Errorf("%d of 6 events count as published", n)
	}
	if _, err := outbox.Reset(t.Context(), owner, time.Time{}); !errors.Is(err, outbox.ErrNothingToReset) {
		t.Errorf("a second reset: %v", err)
	}
}

// What the last checkpoint proves is not published again: the events whose positions were
// drawn before the snapshot's heartbeat. Those after it are, and so is what was not published before the dump.
func TestAResetPublishesAgainFromTheLastCheckpointThatIsProven(t *testing.T) {
	service, owner := database(t)
	burn(t, owner, 5000)
	w := &wire{}
	r, _ := relay(t, service, w, outbox.RelayConfig{})
	commit(t, service, "a", "b")
	settle(t, r)  // looks
	r.Heartbeat() // what was looked at is behind the next snapshot
	commit(t, service, "a")
	settle(t, r)
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, service, "b")
	service, owner = restored(t, owner)
	commit(t, service, "a", "c")
	done, err := outbox.Reset(t.Context(), owner, time.Time{})
	if err != nil || done.Kept != 2 || done.Again != 4 {
		t.Fatalf("%+v (%v), want 2 kept, a-1 and b-1, and 4 again: a-2, b-2, a-3, c-1", done, err)
	}
	again := &wire{}
	r, _ = relay(t, service, again, outbox.RelayConfig{})
	settle(t, r)
	same(t, "published on the new server", again.ids(), "a-2", "b-2", "a-3", "c-1")
}

// An event of a transaction that is open during the reset is published after it.
func TestAResetBesideAnOpenTransactionLosesNothing(t *testing.T) {
	service, owner := database(t)
	burn(t, owner, 5000)
	commit(t, service, "a")
	w := &wire{}
	r, _ := relay(t, service, w, outbox.RelayConfig{})
	settle(t, r)
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	service, owner = restored(t, owner)
	open := begin(t, service, "b")
	if _, err := outbox.Reset(t.Context(), owner, time.Time{}); err != nil {
		t.Fatal(err)
	}
	r, _ = relay(t, service, w, outbox.RelayConfig{})
	settle(t, r)
	if err := open.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(t, service, "b")
	settle(t, r)
	if first, _ := w.inSequence(t); first != 3 {
		t.Errorf("%d of 3 events were sent: %v", first, w.ids())
	}
}

// The server's identifier is not all: a snapshot that is ahead of the server is of another
// history, whoever wrote it, and so is a message.
func TestWhatIsAheadOfTheServerStopsTheRelay(t *testing.T) {
	for what, sql := range map[string]string{
		"a checkpoint": `INSERT INTO outbox_checkpoints (shard, epoch, done) SELECT shard, epoch, '900000000:900000000:' FROM outbox_shards`,
		"a page":       `INSERT INTO outbox_checkpoints (shard, epoch, done, page_snapshot) SELECT shard, epoch, '3:3:', '900000000:900000000:' FROM outbox_shards`,
		"a message":    `UPDATE outbox SET xid = '900000000'`,
		"an older timeline": `INSERT INTO outbox_checkpoints (shard, epoch, done, system_identifier, timeline)
			SELECT shard, epoch, '3:3:', system_identifier, 7 FROM outbox_shards, server_identity()`,
		"another server": `INSERT INTO outbox_checkpoints (shard, epoch, done, system_identifier, timeline)
			SELECT shard, epoch, '3:3:', 1, 1 FROM outbox_shards`,
	} {
		t.Run(what, func(t *testing.T) {
			service, owner := database(t)
			commit(t, service, "a", "a")
			execute(t, owner, sql)
			w := &wire{}
			r, _ := relay(t, service, w, outbox.RelayConfig{Shards: 2})
			if _, err := r.RunOnce(t.Context()); !errors.Is(err, outbox.ErrOtherServer) {
				t.Fatal(err)
			}
			if _, err := outbox.Reset(t.Context(), owner, time.Time{}); err != nil {
				t.Fatal(err)
			}
			settle(t, r)
			if first, again := w.inSequence(t); first != 2 || again != 0 {
				t.Errorf("%v were sent", w.ids())
			}
		})
	}
}

// A reset to a time publishes again what was made since, beside a relay that lives, and forgets nothing that is open.
func TestAResetToATimePublishesAgain(t *testing.T) {
	service, owner := database(t)
	w := &wire{}
	r, _ := relay(t, service, w, outbox.RelayConfig{Shards: 2, Batch: 2})
	commit(t, service, "a", "b")
	settle(t, r)
	open := begin(t, service, "c")
	since := query[time.Time](t, owner, `SELECT clock_timestamp()`)
	commit(t, service, "a", "b", "d")
	settle(t, r)
	w.mu.Lock()
	w.sent = nil
	w.mu.Unlock()
	commit(t, service, "e") // not published yet
	if _, err := outbox.Reset(t.Context(), owner, since); err != nil {
		t.Fatal(err)
	}
	r.Heartbeat() // it learns that it has lost its shards
	turn(t, r)
	r.Heartbeat() // and takes them again
	settle(t, r)
	if err := open.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	same(t, "sent since", sorted(w.ids()), "a-2", "b-2", "c-1", "d-1", "e-1")
	if n := query[int](t, owner, proven); n != 7 {
		t.Errorf("%d of 7 events count as published", n)
	}
	if _, err := outbox.Reset(t.Context(), owner, time.Time{}); !errors.Is(err, outbox.ErrNothingToReset) {
		t.Errorf("without a time: %v", err)
	}
}

// log is what a broker holds of one partition.
type log []outbox.Record

func (l log) tail(page int) outbox.Tail {
	return func(_ context.Context, visit func([]outbox.Record) (bool, error)) error {
		for end := len(l); end > 0; end -= page {
			if more, err := visit(l[max(0, end-page):end]); err != nil || !more {
				return err
			}
		}
		return nil
	}
}

// After a promotion the relay looks for published messages whose commits are gone, notes
// them, and goes on by itself.
func TestAPromotionIsNoticedAndWhatIsLostIsNoted(t *testing.T) {
	service, owner := database(t)
	commit(t, service, "a", "a", "b")
	execute(t, owner, `INSERT INTO outbox_dropped VALUES ('old', 9)`)
	execute(t, owner, `INSERT INTO outbox_checkpoints (shard, epoch, done, system_identifier, timeline)
		SELECT shard, epoch, '3:3:', system_identifier, 0 FROM outbox_shards, server_identity()`)
	published := log{
		{ID: "never looked at", Key: "z", Sequence: 1, Offset: 0},
		{ID: "a-1", Key: "a", Sequence: 1, Offset: 1}, {ID: "old-9", Key: "old", Sequence: 9, Offset: 2},
		{ID: "a-2", Key: "a", Sequence: 2, Offset: 3}, {ID: "b-x", Key: "b", Sequence: 1, Offset: 4}, // another b-1
		{ID: "a-3", Key: "a", Sequence: 3, Offset: 5, Type: "payment.captured"}, {ID: "", Key: "a", Offset: 6}, {ID: "\xff", Key: "a", Sequence: 9, Offset: 6}, {ID: "nul", Key: "\x00", Sequence: 9, Offset: 6}, {ID: "c-1", Key: "c", Sequence: 1, Offset: 7},
		{ID: "c-1", Key: "c", Sequence: 1, Offset: 8}, // sent twice
	}
	w := &wire{}
	r, metrics := relay(t, service, w, outbox.RelayConfig{Tail: published.tail(2), Measure: time.Nanosecond})
	settle(t, r)
	same(t, "published", w.ids(), "a-1", "a-2", "b-1")
	lost, err := outbox.ListLost(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, l := range lost {
		ids = append(ids, l.ID)
	}
	same(t, "lost", ids, "b-x", "a-3", "c-1")
	if lost[1].Type != "payment.captured" || lost[1].Offset != 5 || lost[2].Offset != 7 {
		t.Errorf("lost: %+v", lost)
	}
	if n := metric(t, metrics, "payments_outbox_lost_messages"); n != 3 {
		t.Errorf("payments_outbox_lost_messages = %v, want 3", n)
	}
	here, shards, err := outbox.Checkpoints(t.Context(), service)
	if err != nil || len(shards) != 1 || shards[0].Server == nil || *shards[0].Server != here {
		t.Errorf("the checkpoints are of %+v on %+v (%v)", shards, here, err)
	}
	if n, err := outbox.SettleLost(t.Context(), service); n != 3 || err != nil {
		t.Error(n, err)
	}
	if lost, err := outbox.ListLost(t.Context(), service); len(lost) > 0 || err != nil {
		t.Error(lost, err)
	}
}

// While the log cannot be read after a promotion, nothing is published.
func TestAPromotionIsNotPassedOverUnlooked(t *testing.T) {
	service, owner := database(t)
	commit(t, service, "a")
	execute(t, owner, `INSERT INTO outbox_checkpoints (shard, epoch, done, system_identifier, timeline)
		SELECT shard, epoch, '3:3:', system_identifier, 0 FROM outbox_shards, server_identity()`)
	away := errors.New("the broker is away")
	tail := func(context.Context, func([]outbox.Record) (bool, error)) error { return away }
	w := &wire{}
	r, _ := relay(t, service, w, outbox.RelayConfig{Tail: func(ctx context.Context, visit func([]outbox.Record) (bool, error)) error { return tail(ctx, visit) }})
	if _, err := r.RunOnce(t.Context()); !errors.Is(err, away) || len(w.ids()) > 0 {
		t.Fatal(err, w.ids())
	}
	tail = log(nil).tail(1)
	settle(t, r)
	same(t, "published", w.ids(), "a-1")
}
