package test

import (
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"payments/internal/devstack"
	"payments/internal/devstack/devtest"
)

// The drills do what docs/operations/restore.md says, command by command, with payments
// under way, and end with the audit. Those that take long run when drillsVariable is set.
const drillsVariable = "PAYMENTS_DRILLS" // any text: run all of them

func long(t *testing.T) {
	t.Helper()
	if os.Getenv(drillsVariable) == "" {
		t.Skip("set " + drillsVariable + "=all to run this drill, as `make drills` does")
	}
}

// embedded leaves out the run with a real Kafka, on which the drill does not depend.
func embedded(t *testing.T) {
	t.Helper()
	if os.Getenv("PAYMENTS_TEST_KAFKA_BROKERS") != "" {
		t.Skip("the drill is run with the embedded broker")
	}
}

const drillDatabase = "payments"

// cluster is a Postgres of the drill's own, with the service's roles and an empty database.
func cluster(t *testing.T, settings ...string) *devstack.Postgres {
	t.Helper()
	return started(t, t.TempDir(), settings...)
}

// started starts what is in the directory, an empty cluster if there is nothing.
func started(t *testing.T, dir string, settings ...string) *devstack.Postgres {
	t.Helper()
	_, err := os.Stat(filepath.Join(dir, "data"))
	fresh := errors.Is(err, os.ErrNotExist)
	p, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, tool := range []string{"pg_dump", "pg_restore", "pg_basebackup"} {
		if _, err := p.Tool(tool); errors.Is(err, devstack.ErrNoTool) {
			t.Skip(err)
		}
	}
	if fresh {
		if err := p.Provision(t.Context(), drillDatabase); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// migrated is the cluster's database, for a new world.
func migrated(t *testing.T, p *devstack.Postgres) devtest.URLs {
	t.Helper()
	u := urlsOf(p)
	if err := migrate(t.Context(), u.OwnerURL, u.URL); err != nil {
		t.Fatal(err)
	}
	return u
}

func urlsOf(p *devstack.Postgres) devtest.URLs {
	return devtest.URLs{URL: p.URL(devstack.ServiceRole, drillDatabase), OwnerURL: p.URL(devstack.OwnerRole, drillDatabase)}
}

// execute runs statements as the superuser.
func execute(t *testing.T, p *devstack.Postgres, statements ...string) {
	t.Helper()
	if err := p.Execute(t.Context(), statements...); err != nil {
		t.Fatal(err)
	}
}

// is awaits that the superuser's query gives the value.
func is(t *testing.T, p *devstack.Postgres, query, want string) {
	t.Helper()
	await(t, settleWithin, func() string {
		got, err := p.Value(t.Context(), query)
		if err != nil {
			return err.Error()
		}
		if got != want {
			return query + " gives " + got + ", not " + want
		}
		return ""
	})
}

// backup copies the cluster into a directory of its own.
func backup(t *testing.T, p *devstack.Postgres, signal string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := p.Backup(t.Context(), dir, signal); err != nil {
		t.Fatal(err)
	}
	return dir
}

// moves leads all that is started or run from now on to other databases.
func (w *world) moves(u devtest.URLs) {
	w.t.Helper()
	w.vars["PAYMENTS_DATABASE_URL"], w.vars["PAYMENTS_MIGRATE_DATABASE_URL"] = u.URL, u.OwnerURL
	w.look(u.OwnerURL)
}

// lives begins a life of the service with the world's variables as they are now.
func (s *service) lives(vars map[string]string) {
	s.w.t.Helper()
	addr, admin := s.vars["PAYMENTS_ADDR"], s.vars["PAYMENTS_ADMIN_ADDR"]
	s.vars = maps.Clone(s.w.vars)
	s.vars["PAYMENTS_ADDR"], s.vars["PAYMENTS_ADMIN_ADDR"] = addr, admin
	maps.Copy(s.vars, vars)
	s.start()
	s.awaitReady()
}

// accepted posts a payment until it is accepted: it may be refused for now.
func (w *world) accepted(s *service, key, reference string) {
	w.t.Helper()
	await(w.t, settleWithin, func() string {
		a, err := w.post(s, key, order(reference, "pm_card_visa"), nil)
		switch {
		case err != nil:
			return err.Error()
		case a.status == http.StatusServiceUnavailable:
			return string(a.body)
		case a.status != http.StatusAccepted:
			w.t.Fatalf("%s is answered %d: %s", key, a.status, a.body)
		}
		return ""
	})
}

// published awaits that every event counts as published.
func (w *world) published() {
	w.t.Helper()
	w.none("events are not published", `
		SELECT count(*) FROM outbox o WHERE NOT EXISTS (SELECT FROM outbox_cursors c
			WHERE c.shard = o.key_hash % (SELECT count(*)::int FROM outbox_shards) AND pg_visible_in_snapshot(o.xid, c.done))`)
}

// none awaits that the query counts nothing.
func (w *world) none(what, query string, args ...any) {
	w.t.Helper()
	w.some(what, 0, query, args...)
}

// some awaits that the query counts n.
func (w *world) some(what string, n int64, query string, args ...any) {
	w.t.Helper()
	await(w.t, settleWithin, func() string {
		var have int64
		if err := w.scan(query, args, &have); err != nil {
			return err.Error()
		}
		if have != n {
			return what + ": " + decimal(have) + ", not " + decimal(n)
		}
		return ""
	})
}
