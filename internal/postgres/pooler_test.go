package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack"
	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

// PgBouncer in session mode refuses settings as parameters of a session's start, or ignores
// them where it is told to: then no session would see a tenant's row, and every API key
// would be unknown.
func TestSessionsBehindPgBouncerHaveTheirSettings(t *testing.T) {
	for name, lines := range map[string][]string{
		"as it is installed": nil,
		"ignoring what it does not know": {
			"ignore_startup_parameters = application_name,timezone,synchronous_commit,lock_timeout,statement_timeout,idle_in_transaction_session_timeout,jit,payments.merchant,extra_float_digits",
		},
	} {
		t.Run(name, func(t *testing.T) {
			direct := devtest.Database(t)
			urls := devtest.PgBouncer(t, direct, "session", lines...)
			if err := postgres.Migrate(t.Context(), urls.OwnerURL, urls.URL); err != nil {
				t.Fatal(err)
			}
			if err := postgres.CheckSessions(t.Context(), urls.URL); err != nil {
				t.Fatal(err)
			}
			pool, err := postgres.OpenMigrated(t.Context(), urls.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			engine, err := postgres.OpenEngine(t.Context(), urls.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer engine.Close()
			const name, id = "Ada 🦊", "mer_01m86y4ap9ecqaxaqqqxxb77hg"
			if _, err := pool.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ($1, $2)`, id, name); err != nil {
				t.Fatal(err)
			}
			var got, commit, lock, zone, seqscan string
			if err := pool.QueryRow(t.Context(), `SELECT (SELECT name FROM merchants), current_setting('synchronous_commit'), current_setting('lock_timeout'), current_setting('timezone')`).
				Scan(&got, &commit, &lock, &zone); err != nil || got != name || commit != "on" || lock != "5s" || zone != "UTC" {
				t.Errorf("the merchant is %q, synchronous_commit %s, lock_timeout %s, timezone %s (%v)", got, commit, lock, zone, err)
			}
			if err := engine.QueryRow(t.Context(), `SELECT current_setting('enable_seqscan')`).Scan(&seqscan); err != nil || seqscan != "off" {
				t.Errorf("the engine's enable_seqscan is %q (%v)", seqscan, err)
			}
			// One tenant's transactions are bounded, and the session's setting is everybody's after them.
			seen := func(ctx context.Context) (n int) {
				t.Helper()
				if err := postgres.InTx(ctx, pool, func(tx pgx.Tx) error { return tx.QueryRow(ctx, `SELECT count(*) FROM merchants`).Scan(&n) }); err != nil {
					t.Fatal(err)
				}
				return n
			}
			if others, all := seen(postgres.ForTenant(t.Context(), "mer_1")), seen(t.Context()); others != 0 || all != 1 {
				t.Errorf("another tenant sees %d merchants, everybody %d", others, all)
			}
		})
	}
}

// A pooler that gives a session's connection to others loses settings and locks in silence.
func TestAPoolerThatKeepsNoSessionIsRefused(t *testing.T) {
	for _, mode := range []string{"transaction", "statement"} {
		t.Run(mode, func(t *testing.T) {
			direct := devtest.Database(t)
			urls := devtest.PgBouncer(t, direct, mode)
			for what, err := range map[string]error{
				"the service's sessions": postgres.CheckSessions(t.Context(), urls.URL),
				"migrate":                postgres.Migrate(t.Context(), urls.OwnerURL, urls.URL),
				"migrate as the owner":   postgres.Migrate(t.Context(), urls.OwnerURL, direct.URL),
				"migrate for a service":  postgres.Migrate(t.Context(), direct.OwnerURL, urls.URL),
			} {
				if err == nil || postgres.Unavailable(err) || !strings.Contains(err.Error(), "set PgBouncer's pool_mode to session") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	direct := devtest.Database(t)
	if err := postgres.CheckSessions(t.Context(), direct.URL); err != nil {
		t.Errorf("without a pooler: %v", err)
	}
}

// A LATIN1 database refuses the first emoji, and one in SQL_ASCII takes bytes that are no
// text. Neither is migrated, nor used.
func TestADatabaseThatIsNotInUTF8IsRefused(t *testing.T) {
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := server.Provision(t.Context(), "payments"); err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), server.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close(context.WithoutCancel(t.Context())) }()
	for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
		t.Run(encoding, func(t *testing.T) {
			name := "in_" + strings.ToLower(encoding)
			if _, err := admin.Exec(t.Context(), `CREATE DATABASE `+name+` OWNER `+devstack.OwnerRole+` ENCODING '`+encoding+`' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`); err != nil {
				t.Fatal(err)
			}
			service, owner := server.URL(devstack.ServiceRole, name), server.URL(devstack.OwnerRole, name)
			pool, err := postgres.OpenMigrated(t.Context(), service)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			for what, err := range map[string]error{
				"migrate": postgres.Migrate(t.Context(), owner, service), "sessions": postgres.CheckSessions(t.Context(), service), "the pool": pool.Ping(t.Context()),
			} {
				if err == nil || postgres.Unavailable(err) || !strings.Contains(err.Error(), "encoded in "+encoding+" and has to be in UTF8") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v", what, err)
				}
			}
			var tables int
			conn, err := pgx.Connect(t.Context(), owner)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables); err != nil || tables != 0 {
				t.Errorf("migrate has left %d tables (%v)", tables, err)
			}
		})
	}
}
