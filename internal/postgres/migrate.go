package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"payments/migrations"
)

// Migrate brings the schema up as the owner, one process at a time (a session
// advisory lock), and then grants the role of appURL what the service needs.
// Both URLs may name the same role.
func Migrate(ctx context.Context, ownerURL, appURL string) error {
	return MigrateWarning(ctx, ownerURL, appURL, func(string) {})
}

// MigrateWarning is Migrate that passes on what a migration warns of: rows from before
// that a person has to look at.
func MigrateWarning(ctx context.Context, ownerURL, appURL string, warn func(message string)) error {
	owner, err := pgx.ParseConfig(ownerURL)
	if err != nil {
		return errors.New("the migration URL is not a Postgres connection URL")
	}
	app, err := pgx.ParseConfig(appURL)
	if err != nil {
		return errors.New("the database URL is not a Postgres connection URL")
	}
	if err := checkSessions(ctx, owner); err != nil {
		return err
	}
	// The service's role need not be able to log in yet.
	if err := checkSessions(ctx, app); errors.Is(err, ErrEncoding) || errors.Is(err, errPooled) {
		return fmt.Errorf("as the service's role %s: %w", app.User, err)
	}
	owner.ConnectTimeout = connectTimeout
	owner.RuntimeParams[tenantSetting] = everybody // a migration may move the rows of all
	if err := settleSession(ctx, owner); err != nil {
		return err
	}
	owner.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" {
			warn(n.Message)
		}
	}
	db := stdlib.OpenDB(*owner)
	defer db.Close()
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("make migration lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
		goose.WithSessionLocker(locker), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if app.User == owner.User {
		return closeDefiners(ctx, db)
	}
	role := pgx.Identifier{app.User}.Sanitize()
	for _, grant := range []string{
		"GRANT USAGE ON SCHEMA public TO " + role,
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO " + role,
		"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO " + role,
		// What has happened stays: events and answers cannot be rewritten by the service.
		"REVOKE UPDATE, DELETE ON outbox, outbox_checkpoints FROM " + role,
		// What bounds retention is written by its functions alone.
		"REVOKE INSERT, UPDATE, DELETE ON outbox_partitions, outbox_dropped FROM " + role,
		"GRANT EXECUTE ON FUNCTION outbox_extend, outbox_retire, inbox_keep_days, inbox_forget_days TO " + role,
		"GRANT EXECUTE ON FUNCTION report_refresh TO " + role,
		"REVOKE UPDATE ON idempotency_keys FROM " + role,
		"REVOKE UPDATE, DELETE ON saga_actions, key_acts, staff_refunds FROM " + role, // who did what stays
		"REVOKE DELETE ON orders, order_lines, payments, refunds, stock_reservations, sagas, saga_attempts, merchants, api_keys FROM " + role,
	} {
		if _, err := db.ExecContext(ctx, grant); err != nil {
			return fmt.Errorf("%s: %w", grant, err)
		}
	}
	return closeDefiners(ctx, db)
}

// closeDefiners takes from everybody the functions that run with their owner's rights. Postgres
// gives every new function to PUBLIC. The service's role has its own grants by then.
func closeDefiners(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, `
		DO $$
		DECLARE
			f regprocedure;
		BEGIN
			FOR f IN SELECT p.oid FROM pg_proc p WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace
				AND pg_has_role(p.proowner, 'USAGE') AND has_function_privilege('public', p.oid, 'EXECUTE')
			LOOP
				EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
			END LOOP;
		END $$`); err != nil {
		return fmt.Errorf("close the functions of the owner: %w", err)
	}
	return nil
}

const pgerrUndefinedTable = "42P01"

// ErrSchema means that the schema is missing or older than this program's migrations.
var ErrSchema = errors.New("run `payments migrate`")

// OpenMigrated is Open of a pool that gives no connection before it has seen that the
// database is in UTF-8, that its sessions keep their settings, and that the schema is as new
// as this program's migrations, whenever the database first answers. Until then Acquire and
// all that uses it fail, with ErrEncoding or ErrSchema. It does not connect yet.
func OpenMigrated(ctx context.Context, url string) (*pgxpool.Pool, error) {
	return openMigrated(ctx, url, maxConnections, nil)
}

// OpenEngine is OpenMigrated for a saga worker. Each of its statements finds its rows by an
// index. Its sessions say so to the planner, which would read the whole table as long as it
// knows only the statistics of an empty one. And they plan each statement once: no value of a
// parameter makes another plan better, and planning took an eighth of Postgres' time.
func OpenEngine(ctx context.Context, url string) (*pgxpool.Pool, error) {
	return openMigrated(ctx, url, engineConnections, map[string]string{
		"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
		"plan_cache_mode": "force_generic_plan",
	})
}

func openMigrated(ctx context.Context, url string, connections int32, settings map[string]string) (*pgxpool.Pool, error) {
	var checked atomic.Bool
	return open(ctx, url, connections, settings, func(ctx context.Context, conn *pgx.Conn) (bool, error) {
		if !checked.Load() {
			if err := fit(ctx, conn); err != nil {
				return false, err
			}
			if err := migrated(ctx, conn); err != nil {
				return false, err
			}
			checked.Store(true)
		}
		return prepare(ctx, conn)
	})
}

func migrated(ctx context.Context, conn *pgx.Conn) error {
	var have int64
	err := conn.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&have)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == pgerrUndefinedTable {
		err = nil // the database has not been migrated yet
	}
	if err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	need, err := newest()
	if err != nil {
		return err
	}
	if have < need {
		return fmt.Errorf("the schema is at version %d and this program needs %d: %w", have, need, ErrSchema)
	}
	return nil
}

// newest is the highest number in the migrations' names, which may have gaps.
func newest() (version int64, err error) {
	sources, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	for _, name := range sources {
		n, err := goose.NumericComponent(name)
		if err != nil {
			return 0, fmt.Errorf("read the number of migration %s: %w", name, err)
		}
		version = max(version, n)
	}
	return version, nil
}
