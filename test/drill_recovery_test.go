package test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"payments/internal/devstack"
	"payments/internal/devstack/devtest"
)

// archived is a cluster that archives its log, and the settings with which a backup of it recovers to the
// restore point named `drill`.
func archived(t *testing.T) (p *devstack.Postgres, recovery []string) {
	t.Helper()
	archive := t.TempDir()
	if err := os.Chmod(archive, 0o777); err != nil { // the server runs as another user
		t.Fatal(err)
	}
	p = cluster(t, "archive_mode=on", "archive_command=cp %p "+archive+"/%f")
	return p, []string{"restore_command=cp " + archive + "/%f %p", "recovery_target_name=drill", "recovery_target_action=promote"}
}

// archives awaits that all of the log up to now is in the archive, and stops the server.
func archives(t *testing.T, p *devstack.Postgres) {
	t.Helper()
	segment, err := p.Value(t.Context(), `SELECT pg_walfile_name(pg_switch_wal())`)
	if err != nil {
		t.Fatal(err)
	}
	is(t, p, fmt.Sprintf(`SELECT (last_archived_wal >= '%s')::text FROM pg_stat_archiver`, segment), "true")
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
}

// recovered starts the backup and awaits the end of its recovery.
func recovered(t *testing.T, dir string, recovery []string) *devstack.Postgres {
	t.Helper()
	p := started(t, dir, recovery...)
	is(t, p, `SELECT pg_is_in_recovery()::text`, "false")
	return p
}

// The one database is recovered to a moment ago. The broker and the bank are ahead of it: they
// know what was done since. Or the broker was recovered, too, and is behind.
func TestTheDatabaseIsRecoveredToAMomentAgo(t *testing.T) {
	t.Parallel()
	long(t)
	old, recovery := archived(t)
	w := newWorld(t, parts{database: migrated(t, old)})
	w.moves(urlsOf(old))
	s := w.serve(nil)
	l := w.load(random(t), s)
	await(t, settleWithin, func() string { return l.fewer(20) })
	ahead, behind := backup(t, old, devstack.SignalRecovery), backup(t, old, devstack.SignalRecovery)
	// The broker's backup is older than the moment.
	ends, err := w.logEnds()
	if err != nil {
		t.Fatal(err)
	}
	missing := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339) // before the oldest event that it lacks
	more := l.count() + 10
	await(t, settleWithin, func() string { return l.fewer(more) })
	// Payments are under way at the moment itself: they are authorized, and captured after it.
	w.fault(`{"kind": "outage", "operation": "capture", "seconds": 600}`)
	for _, key := range []string{"way-1", "way-2"} {
		w.accepted(s, key, "W-"+key)
	}
	w.some("payments are under way", 2, `SELECT count(*) FROM payment_view v JOIN orders o ON o.merchant_id = v.merchant_id AND o.id = v.order_id
		WHERE o.reference LIKE 'W-way-%' AND v.sequence = 3`)
	l.end()
	execute(t, old, `SELECT pg_create_restore_point('drill')`)
	w.heal()
	w.settled() // those under way are captured, told and applied; in the recovered database that is still to come
	w.loses(s, 3)
	w.published()
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}
	archives(t, old)

	// The broker is ahead.
	p := recovered(t, ahead, recovery)
	w.moves(urlsOf(p))
	w.heal()
	s.lives(nil)
	await(t, settleWithin, func() string {
		if s.metric("payments_outbox_lost_messages") == 0 {
			return "what was lost is not noticed"
		}
		return ""
	})
	if told := w.must("outbox", "lost"); !strings.Contains(told, "payment.captured") || strings.Count(told, "order.placed") != 3 {
		t.Errorf("outbox lost: %s", told)
	}
	w.repaired(s)
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}

	// The broker is behind: it was recovered, too, to an earlier moment.
	p = recovered(t, behind, recovery)
	w.moves(urlsOf(p))
	w.restoresLog(ends)
	if told, stderr, code := run(t.Context(), w.vars, "audit", "-kafka"); code != 1 || !strings.Contains(told, "is not in the log") {
		t.Errorf("the audit does not name what the log lacks: %d\n%s%s", code, told, stderr)
	}
	// Before the relays, so that each order's events are in sequence.
	w.must("outbox", "reset", "-from", missing)
	s.lives(nil)
	w.audited()
	w.must("audit", "-settled", "-kafka")
}

// The separate read database is recovered to a moment ago, with the broker ahead of it, and
// with one that has lost its log.
func TestTheReadDatabaseIsRecoveredToAMomentAgo(t *testing.T) {
	t.Parallel()
	long(t)
	old, recovery := archived(t)
	read := migrated(t, old)
	write := devtest.Database(t)
	w := newWorld(t, parts{database: write})
	w.moves(write)
	w.vars["PAYMENTS_READ_DATABASE_URL"] = read.OwnerURL // its role owns the schema there
	s := w.serve(nil)
	l := w.load(random(t), s)
	await(t, settleWithin, func() string { return l.fewer(20) })
	ahead, behind := backup(t, old, devstack.SignalRecovery), backup(t, old, devstack.SignalRecovery)
	more := l.count() + 10
	await(t, settleWithin, func() string { return l.fewer(more) })
	execute(t, old, `SELECT pg_create_restore_point('drill')`)
	more = l.count() + 10
	await(t, settleWithin, func() string { return l.fewer(more) })
	archives(t, old) // under load: the API goes on taking payments

	p := recovered(t, ahead, recovery)
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}
	w.vars["PAYMENTS_READ_DATABASE_URL"] = urlsOf(p).OwnerURL
	s.lives(nil)
	more = l.count() + 10
	await(t, settleWithin, func() string { return l.fewer(more) })
	l.end()
	w.some("sagas are under way", 0, `SELECT count(*) FROM sagas WHERE due_at IS NOT NULL`)
	w.published()
	w.agrees("with the broker ahead", "audit", "-settled")

	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}
	p = recovered(t, behind, recovery)
	w.vars["PAYMENTS_READ_DATABASE_URL"] = urlsOf(p).OwnerURL
	w.vars["PAYMENTS_KAFKA_PREFIX"] += "restored."
	w.must("outbox", "reset", "-from", time.Now().AddDate(0, 0, -1).UTC().Format(time.RFC3339))
	s.lives(nil)
	w.published()
	w.agrees("with the broker behind", "audit", "-settled", "-kafka")
}

// agrees awaits that the audit is clean: the read model stands in another database, whose consumer is on its way.
func (w *world) agrees(when string, args ...string) {
	w.t.Helper()
	await(w.t, settleWithin, func() string {
		stdout, stderr, code := run(w.t.Context(), w.vars, args...)
		if code != 0 {
			return when + ", the audit ends with " + decimal(int64(code)) + "\n" + stdout + stderr
		}
		return ""
	})
}
