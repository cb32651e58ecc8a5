package test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"payments/internal/devstack"
)

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// The database is moved by dump and restore into a fresh cluster, as to a new major version. Everything was published
// before. The API comes back first and takes payments before a relay looks: the relays stop, say why, and
// go on after `payments outbox reset`.
func TestADumpIsRestoredIntoAFreshCluster(t *testing.T) {
	t.Parallel()
	old := cluster(t)
	w := newWorld(t, parts{database: migrated(t, old)})
	w.moves(urlsOf(old))
	execute(t, old, `CREATE PROCEDURE burn(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`,
		`CALL burn(20000)`)
	s := w.serve(nil)
	w.fault(`{"kind": "outage", "operation": "capture", "seconds": 600}`)
	post := func(s *service, keys string) {
		t.Helper()
		for key := range strings.SplitSeq(keys, "") {
			w.accepted(s, key, "A-"+key)
		}
	}
	post(s, "abcdefghijkl")
	w.some("payments are authorized and projected", 12, `SELECT count(*) FROM payment_view WHERE sequence = 3`)
	w.published()
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}

	fresh := cluster(t)
	dump := t.TempDir() + "/payments.dump"
	if err := old.Run(t.Context(), "pg_dump", "-Fc", "-f", dump, "-d", old.URL(devstack.OwnerRole, drillDatabase)); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Run(t.Context(), "pg_restore", "--exit-on-error", "-d", fresh.URL("postgres", drillDatabase), dump); err != nil {
		t.Fatal(err)
	}
	w.moves(urlsOf(fresh))
	w.heal()
	s.lives(map[string]string{"PAYMENTS_ROLES": "api,saga"}) // first the processes that take payments, then those that tell of them
	post(s, "mnop")
	w.some("payments have succeeded", 16, `SELECT count(*) FROM payments WHERE status = 'succeeded'`)
	relay := w.serve(map[string]string{"PAYMENTS_ROLES": "relay,projector,webhooks,reports"})
	await(t, settleWithin, func() string {
		if relay.metric("payments_outbox_unproven") != 1 {
			return "the relay does not stop"
		}
		return ""
	})
	if status := w.must("outbox", "status"); !strings.Contains(status, "payments outbox reset") {
		t.Errorf("outbox status: %s", status)
	}
	t.Log(w.must("outbox", "reset"))
	w.audited()
	w.must("audit", "-settled", "-kafka")
	lost := w.count(`SELECT count(*) FROM outbox o WHERE NOT EXISTS (SELECT FROM payment_timeline t WHERE t.event_id = o.id)
		AND NOT EXISTS (SELECT FROM inbox_parked p WHERE p.headers->>'ce_id' = o.id)`)
	if lost > 0 {
		t.Errorf("%d of %d events in the outbox have reached no consumer", lost, w.count(`SELECT count(*) FROM outbox`))
	}
	await(t, settleWithin, func() string {
		if relay.metric("payments_outbox_unproven") != 0 {
			return "the relay says still that it stops"
		}
		return ""
	})
}
