package test

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/devstack"
	"payments/internal/devstack/devtest"
)

// Deadlines of conditions, generous for a machine that is busy with other tests.
const (
	readyWithin  = 2 * time.Minute
	settleWithin = 3 * time.Minute
)

// world is one installation: a database, a prefix at a broker, a simulator with a
// ledger of its own, two merchants with stock, an operator, and the services that
// the test starts.
type world struct {
	t         *testing.T
	dir       string
	vars      map[string]string // of every subcommand
	db        *pgxpool.Pool     // what the test itself looks with, as the tables' owner
	http      *http.Client
	elsewhere sync.Map // hosts that are no API's: admin addresses and the simulator's
	simulator *process
	services  int
	notified  string // the first service's address, to which the simulator sends its webhooks; empty beside a demo
}

// parts that a test may bring along because it means to break them.
type parts struct {
	database devtest.URLs // migrated
	brokers  []string
}

func newWorld(t *testing.T, p parts) *world {
	t.Helper()
	if p.database == (devtest.URLs{}) {
		p.database = devtest.Database(t)
	}
	if p.brokers == nil {
		p.brokers = devtest.Brokers(t)
	}
	w := &world{t: t, dir: t.TempDir()}
	w.http = w.httpClient(&http.Transport{MaxIdleConnsPerHost: 100, MaxConnsPerHost: 100})
	w.vars = map[string]string{
		"PAYMENTS_DATABASE_URL":     p.database.URL,
		"PAYMENTS_KAFKA_BROKERS":    strings.Join(p.brokers, ","),
		"PAYMENTS_KAFKA_PREFIX":     "test." + strings.ToLower(rand.Text()[:16]) + ".",
		"PAYMENTS_KAFKA_FENCING":    "on",
		"PAYMENTS_SIMULATOR_ADDR":   w.address(),
		"PAYMENTS_SIMULATOR_DATA":   filepath.Join(w.dir, "simulator.db"),
		"PAYMENTS_SAGA_CONCURRENCY": "64",
		// Below the demo's, so that lost answers are resolved sooner; the horizon is
		// longer than the 3 s after which pm_card_late_applied is carried out.
		"PAYMENTS_PROVIDER_TIMEOUT": "1s",
		"PAYMENTS_PROVIDER_HORIZON": "4s",
	}
	w.vars["PAYMENTS_PROVIDER_URL"] = "http://" + w.vars["PAYMENTS_SIMULATOR_ADDR"]
	w.elsewhere.Store(w.vars["PAYMENTS_SIMULATOR_ADDR"], true)
	for line := range strings.Lines(w.must("secrets")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "PAYMENTS_") {
			w.vars[name] = value
		}
	}
	w.notified = w.address()
	w.vars["PAYMENTS_SIMULATOR_WEBHOOK_URL"] = "http://" + w.notified + "/v1/provider/webhooks/simulator"
	w.vars["PAYMENTS_PROVIDER_WEBHOOK_SECRETS"] = w.vars["PAYMENTS_SIMULATOR_WEBHOOK_SECRET"]
	w.must("seed")
	w.look(p.database.OwnerURL)
	w.simulate()
	return w
}

func (w *world) look(url string) {
	w.t.Helper()
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		w.t.Fatal(err)
	}
	c.MaxConns = 4
	if w.db, err = pgxpool.NewWithConfig(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.db.Close)
}

// address on which a process can be started again after it was killed.
func (w *world) address() string {
	w.t.Helper()
	port, err := devstack.FreePort(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return "127.0.0.1:" + strconv.Itoa(port)
}

// must gives what the subcommand wrote to its standard output.
func (w *world) must(args ...string) string {
	w.t.Helper()
	stdout, stderr, code := run(w.t.Context(), w.vars, args...)
	if code != 0 {
		w.t.Fatalf("payments %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// simulate starts the simulator, again with its ledger if it was killed.
func (w *world) simulate() {
	w.t.Helper()
	w.simulator = start(w.t, w.dir, "simulator", w.vars, "simulator")
	await(w.t, readyWithin, func() string { return w.answers(w.vars["PAYMENTS_PROVIDER_URL"] + "/healthz") })
}

// answers is "" when the URL answers 200.
func (w *world) answers(url string) (missing string) {
	a, err := w.get(url, "")
	if err != nil {
		return err.Error()
	}
	if a.status != http.StatusOK {
		return fmt.Sprintf("%s answers %d: %s", url, a.status, a.body)
	}
	return ""
}

// service is one `payments serve`, with its addresses over all its lives.
type service struct {
	*process
	w          *world
	name       string
	vars       map[string]string
	url, admin string
}

// serve starts a service and waits until it is ready.
func (w *world) serve(vars map[string]string) *service {
	w.t.Helper()
	w.services++
	s := &service{w: w, name: fmt.Sprintf("serve-%d", w.services), vars: maps.Clone(w.vars)}
	s.vars["PAYMENTS_ADDR"], s.vars["PAYMENTS_ADMIN_ADDR"] = w.address(), w.address()
	if w.services == 1 && w.notified != "" {
		s.vars["PAYMENTS_ADDR"] = w.notified
	}
	maps.Copy(s.vars, vars)
	s.url, s.admin = "http://"+s.vars["PAYMENTS_ADDR"], "http://"+s.vars["PAYMENTS_ADMIN_ADDR"]
	w.elsewhere.Store(s.vars["PAYMENTS_ADMIN_ADDR"], true)
	s.start()
	s.awaitReady()
	return s
}

// start begins another life, on the same addresses.
func (s *service) start() {
	s.w.t.Helper()
	s.process = start(s.w.t, s.w.dir, s.name, s.vars, "serve")
}

func (s *service) awaitReady() {
	s.w.t.Helper()
	await(s.w.t, readyWithin, func() string {
		if !s.running() {
			s.w.t.Fatalf("%s ended with exit code %d", s.name, s.code())
		}
		return s.w.answers(s.admin + "/readyz")
	})
}

// scan reads one row.
func (w *world) scan(sql string, args []any, into ...any) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	return w.db.QueryRow(ctx, sql, args...).Scan(into...)
}

// count is a query's one number.
func (w *world) count(sql string, args ...any) (n int64) {
	w.t.Helper()
	if err := w.scan(sql, args, &n); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// rows counts those of every table.
func (w *world) rows() map[string]int64 {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `
		SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`)
	if err != nil {
		w.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	counted := map[string]int64{}
	for _, table := range tables {
		counted[table] = w.count("SELECT count(*) FROM " + pgx.Identifier{table}.Sanitize())
	}
	return counted
}

// settled waits until nothing is under way: no saga is due, every event is
// published, checkpointed and applied.
func (w *world) settled() {
	w.t.Helper()
	await(w.t, settleWithin, func() string {
		var sagas, unpublished, unapplied int64
		err := w.scan(`
			SELECT (SELECT count(*) FROM sagas WHERE due_at IS NOT NULL),
				(SELECT count(*) FROM outbox o WHERE NOT EXISTS (
					SELECT FROM outbox_cursors c WHERE c.shard = o.key_hash % (SELECT count(*)::int FROM outbox_shards)
						AND pg_visible_in_snapshot(o.xid, c.done))),
				(SELECT count(*) FROM outbox o WHERE NOT EXISTS (
					SELECT FROM payment_timeline t WHERE t.merchant_id = o.merchant_id AND t.event_id = o.id))`,
			nil, &sagas, &unpublished, &unapplied)
		if err != nil {
			return err.Error()
		}
		if sagas+unpublished+unapplied > 0 {
			return fmt.Sprintf("%d sagas are under way, %d events are unpublished, %d are not in the read model%s",
				sagas, unpublished, unapplied, w.underWay())
		}
		return ""
	})
}

// underWay tells where the sagas stand, for a person who reads a failure.
func (w *world) underWay() (lines string) {
	err := w.scan(`
		SELECT coalesce(string_agg(E'\n' || n || ' ' || state || ' at ' || step || CASE WHEN resolving THEN ', resolving' ELSE '' END
			|| ', owner ' || owner || ', due in ' || due || ' s, tries ' || tries, '' ORDER BY n DESC), '')
		FROM (SELECT count(*) AS n, state, step, resolving, coalesce(owner, 'nobody') AS owner, round(extract(epoch FROM max(due_at) - now())) AS due, max(tries) AS tries
		      FROM sagas WHERE due_at IS NOT NULL GROUP BY 2, 3, 4, 5) g`, nil, &lines)
	if err != nil {
		return err.Error()
	}
	return lines
}

// audited waits until everything is settled and lets the program check it all.
func (w *world) audited() {
	w.t.Helper()
	w.settled()
	w.must("audit", "-settled")
	if n := w.count(`SELECT count(*) FROM payment_timeline`); n != w.count(`SELECT count(*) FROM outbox`) {
		w.t.Errorf("the timelines have %d entries, not one for each event", n)
	}
	if n := w.count(`SELECT count(*) FROM inbox_parked`); n > 0 {
		w.t.Errorf("there are %d dead letters", n)
	}
}
