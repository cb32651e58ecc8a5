package test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"payments/internal/devstack"
	"payments/internal/devstack/devtest"
)

// backWithin is how long after a promotion the service may need to take payments again.
const backWithin = 10 * time.Second

// pair is a primary, a standby that follows it, and a switch that leads to one of them.
type pair struct {
	primary, standby *devstack.Postgres
	follows          *wire // from the standby to the primary
	address          *wire // of the service's database
}

func newPair(t *testing.T) pair {
	t.Helper()
	p := pair{primary: cluster(t)}
	migrated(t, p.primary)
	p.follows, p.address = newWire(t, p.primary.Address()), newWire(t, p.primary.Address())
	follow, err := p.primary.Follow(p.follows.addr())
	if err != nil {
		t.Fatal(err)
	}
	p.standby = started(t, backup(t, p.primary, devstack.SignalStandby), follow)
	is(t, p.primary, `SELECT count(*)::text FROM pg_stat_replication WHERE state = 'streaming'`, "1")
	return p
}

// caughtUp awaits that the standby has all that the primary has.
func (p pair) caughtUp(t *testing.T) {
	t.Helper()
	flushed, err := p.primary.Value(t.Context(), `SELECT pg_current_wal_flush_lsn()::text`)
	if err != nil {
		t.Fatal(err)
	}
	is(t, p.standby, `SELECT (pg_last_wal_receive_lsn() >= '`+flushed+`'::pg_lsn)::text`, "true")
}

// urls lead through the switch.
func (p pair) urls(t *testing.T) devtest.URLs {
	t.Helper()
	through := urlsOf(p.primary)
	for _, u := range []*string{&through.URL, &through.OwnerURL} {
		parsed, err := url.Parse(*u)
		if err != nil {
			t.Fatal(err)
		}
		parsed.Host = p.address.addr()
		*u = parsed.String()
	}
	return through
}

// back awaits that the service takes payments again, and gives what that took.
func (l *load) back(s *service) time.Duration {
	l.w.t.Helper()
	began, have := time.Now(), l.count()
	await(l.w.t, backWithin, func() string {
		if missing := l.fewer(have + 5); missing != "" {
			return missing
		}
		return l.w.answers(s.admin + "/readyz")
	})
	return time.Since(began).Round(10 * time.Millisecond)
}

// reads asks for payments until stop is called, which may be refused for now and nothing else.
func (w *world) reads(s *service) (stop func()) {
	w.t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(pace / 5)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if a, err := w.get(s.url+"/v1/payments?limit=5", w.vars["PAYMENTS_API_KEY"]); err == nil && a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
				w.t.Errorf("GET /v1/payments is answered %d: %s", a.status, a.body)
			}
		}
	})
	stop = sync.OnceFunc(func() { close(done); wg.Wait() })
	w.t.Cleanup(stop)
	return stop
}

// The primary of a synchronous pair dies, or is made read-only and left alive with all its
// connections. The standby is promoted, and the switch leads there. No payment that was acknowledged is lost, no
// request is answered 500, and the service comes back by itself.
func TestASynchronousStandbyIsPromoted(t *testing.T) {
	t.Parallel()
	embedded(t)
	for what, leave := range map[string]func(*testing.T, pair){
		"the primary dies": func(t *testing.T, p pair) {
			t.Helper()
			if err := p.primary.Kill(); err != nil {
				t.Fatal(err)
			}
		},
		"the primary is read-only": func(t *testing.T, p pair) {
			t.Helper()
			execute(t, p.primary, `ALTER SYSTEM SET default_transaction_read_only = on`, `SELECT pg_reload_conf()`)
			is(t, p.primary, `SHOW default_transaction_read_only`, "on")
			is(t, p.primary, `SELECT count(*)::text FROM pg_stat_activity WHERE backend_xid IS NOT NULL`, "0")
			p.caughtUp(t)
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			execute(t, p.primary, `ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`)
			is(t, p.primary, `SELECT sync_state FROM pg_stat_replication`, "sync")
			u := p.urls(t)
			w := newWorld(t, parts{database: u})
			w.moves(u)
			s := w.serve(nil)
			l := w.load(random(t), s)
			await(t, settleWithin, func() string { return l.fewer(30) })
			stop := w.reads(s)
			leave(t, p)
			await(t, settleWithin, func() string { // the service has noticed
				if w.answers(s.admin+"/readyz") == "" {
					return "the service is ready without a primary"
				}
				return ""
			})
			if err := p.standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.address.lead(p.standby.Address())
			t.Logf("payments are taken again %s after the promotion", l.back(s))
			stop()
			w.look(u.OwnerURL) // whose connections lead to the old primary
			l.verify()
			if lost := w.must("outbox", "status"); !strings.Contains(lost, "lost        0 ") || !strings.Contains(lost, "timeline 2") {
				t.Errorf("outbox status: %s", lost)
			}
		})
	}
}

// The primary of an asynchronous pair dies while its standby is behind. What was acknowledged
// and published meanwhile is lost: the relay finds its events and says which, and the rest goes on by itself.
func TestAnAsynchronousStandbyIsPromoted(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPair(t)
	u := p.urls(t)
	w := newWorld(t, parts{database: u})
	w.moves(u)
	s := w.serve(nil)
	l := w.load(random(t), s)
	await(t, settleWithin, func() string { return l.fewer(20) })
	l.end()
	w.settled()
	p.caughtUp(t)
	p.follows.hold()
	const lost = 3
	w.loses(s, lost)
	if err := p.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.address.lead(p.standby.Address())
	await(t, settleWithin, func() string {
		if n := s.metric("payments_outbox_lost_messages"); n != 6 {
			return "payments_outbox_lost_messages is not 6"
		}
		return ""
	})
	told := w.must("outbox", "lost")
	if strings.Count(told, "order.placed") != lost || strings.Count(told, "stock.reserved") != lost {
		t.Errorf("outbox lost: %s", told)
	}
	w.heal()
	w.repaired(s)
	w.accepted(s, "after", "A-after")
	w.settled()
	w.must("audit", "-settled")
}

// loses makes payments that will be lost, and awaits that their first two events are published and
// applied. The provider is away, so that no money is lost with them.
func (w *world) loses(s *service, n int64) {
	w.t.Helper()
	w.fault(`{"kind": "outage", "operation": "*", "seconds": 600}`)
	for i := range n {
		key := "lost-" + decimal(i)
		w.accepted(s, key, "L-"+key)
	}
	w.some("events of payments that will be lost are applied", 2*n, `
		SELECT count(*) FROM payment_timeline t JOIN payment_view v USING (merchant_id, payment_id) WHERE v.order_reference LIKE 'L-lost-%'`)
}

// repaired does what the page says after commits were lost, and audits.
func (w *world) repaired(s *service) {
	w.t.Helper()
	w.some("sagas are under way", 0, `SELECT count(*) FROM sagas WHERE due_at IS NOT NULL`)
	w.published()
	w.consumed()
	w.must("reconcile", "-from", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), "-repair")
	w.must("replay", "payment_view", "-accept-differences")
	if _, stderr, code := run(w.t.Context(), w.vars, "deadletters", "replay", "-all", "-fingerprint", "conflict"); code != 0 {
		w.t.Fatalf("deadletters replay: %d %s", code, stderr)
	}
	w.must("outbox", "lost", "-settle")
	w.settled()
	w.must("audit", "-settled")
	await(w.t, settleWithin, func() string {
		if s.metric("payments_outbox_lost_messages") != 0 {
			return "the alert goes on"
		}
		return ""
	})
}
