package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/config"
	"payments/internal/order"
	"payments/internal/postgres"
)

// oldestPostgres is the version that the tests run on.
const oldestPostgres = 15

// databases checks each database by the role that uses it, and the owner's role.
func (d *doctor) databases(ctx context.Context, c config.Config) {
	if c.DatabaseURL != "" {
		if pool := d.database(ctx, "PAYMENTS_DATABASE_URL", c.DatabaseURL); pool != nil {
			defer pool.Close()
			d.server(ctx, pool)
			d.serviceRole(ctx, pool, c.MigrateDatabaseURL != c.DatabaseURL)
			d.rowSecurity(ctx, pool)
			d.keysets(ctx, pool, c)
		}
	}
	if c.ReadDatabaseURL != "" && c.ReadDatabaseURL != c.DatabaseURL {
		if pool := d.database(ctx, "PAYMENTS_READ_DATABASE_URL", c.ReadDatabaseURL); pool != nil {
			pool.Close()
		}
	}
	if c.MigrateDatabaseURL != "" && c.MigrateDatabaseURL != c.DatabaseURL {
		if pool := d.database(ctx, "PAYMENTS_MIGRATE_DATABASE_URL", c.MigrateDatabaseURL); pool != nil {
			d.ownerRole(ctx, pool)
			pool.Close()
		}
	}
}

// database is nil if it cannot be used; then it was told why.
func (d *doctor) database(ctx context.Context, variable, url string) *pgxpool.Pool {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	err := postgres.CheckSessions(ctx, url)
	var pool *pgxpool.Pool
	if err == nil {
		if pool, err = postgres.OpenMigrated(ctx, url); err == nil {
			if err = pool.Ping(ctx); err != nil {
				pool.Close()
			}
		}
	}
	switch {
	case err == nil:
		d.say("database", fine, "", "%s answers, is in UTF-8, keeps sessions and has this program's schema", variable)
		return pool
	case errors.Is(err, postgres.ErrEncoding):
		d.say("database", failed, "make the database anew WITH ENCODING 'UTF8' TEMPLATE template0, and restore into it", "%s: %s", variable, err)
	case errors.Is(err, postgres.ErrSchema):
		d.say("database", failed, "run `payments migrate`", "%s: %s", variable, err)
	case postgres.Unavailable(err):
		d.say("database", away, "start Postgres, or correct host and port of "+variable, "%s: %s", variable, err)
	default:
		d.say("database", failed, "correct "+variable+", or what its sentence names", "%s: %s", variable, err)
	}
	return nil
}

// asked reads one row, and tells why it cannot be read.
func (d *doctor) asked(ctx context.Context, pool *pgxpool.Pool, check, sql string, to ...any) bool {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if err := pool.QueryRow(ctx, sql).Scan(to...); err != nil {
		d.say(check, failed, "grant the service's role what it needs by `payments migrate`", "it cannot be asked: %s", err)
		return false
	}
	return true
}

// server checks version, durability and clock.
func (d *doctor) server(ctx context.Context, pool *pgxpool.Pool) {
	var version, connections, used int
	var standby bool
	var fsync, pages string
	var now time.Time
	before := time.Now()
	if !d.asked(ctx, pool, "database", `
		SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'),
			current_setting('max_connections')::int, (SELECT count(*)::int FROM pg_stat_activity), clock_timestamp()`,
		&version, &standby, &fsync, &pages, &connections, &used, &now) {
		return
	}
	d.clock("the database's", before.Add(time.Since(before)/2).Sub(now))
	if version < oldestPostgres {
		d.say("database", failed, fmt.Sprintf("take Postgres %d or newer", oldestPostgres), "the server is Postgres %d", version)
	}
	if standby {
		d.say("database", failed, "let PAYMENTS_DATABASE_URL lead to the primary", "the server is a standby, which takes no writes")
	}
	if fsync != "on" || pages != "on" {
		d.say("database", warned, "set fsync and full_page_writes to on", "fsync is %s and full_page_writes %s: a crash of the machine can lose or damage payments", fsync, pages)
	}
	if connections-used < 20 {
		d.say("database", warned, "raise max_connections, or run fewer processes", "%d of %d connections are in use", used, connections)
	}
}

// serviceRole must be bound by row-level security.
func (d *doctor) serviceRole(ctx context.Context, pool *pgxpool.Pool, ownersApart bool) {
	const fix = "ALTER ROLE … NOSUPERUSER NOBYPASSRLS, or give PAYMENTS_DATABASE_URL another role and run `payments migrate`"
	var role string
	var super, bypass, owns, stats bool
	if !d.asked(ctx, pool, "role", `
		SELECT rolname, rolsuper, rolbypassrls, EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = 'payments' AND tableowner = current_user),
			pg_has_role('pg_read_all_stats', 'USAGE')
		FROM pg_roles WHERE rolname = current_user`, &role, &super, &bypass, &owns, &stats) {
		return
	}
	switch {
	case super:
		d.say("role", failed, fix, "%s is a superuser: row-level security does not bind it", role)
	case bypass && !owns:
		d.say("role", failed, fix, "%s bypasses row-level security", role)
	case owns && ownersApart:
		d.say("role", failed, "give PAYMENTS_DATABASE_URL a role of its own and run `payments migrate`", "%s owns the tables, and could change the past", role)
	case owns:
		d.say("role", warned, "give the service a role of its own: PAYMENTS_DATABASE_URL, with the owner's in PAYMENTS_MIGRATE_DATABASE_URL; then `payments migrate`",
			"%s owns the tables, and could change the past", role)
	default:
		d.say("role", fine, "", "%s is neither superuser nor owner, and row-level security binds it", role)
	}
	if !stats && !super {
		d.say("role", warned, "GRANT pg_read_all_stats TO "+role, "%s does not see other sessions, such as the one whose transaction holds back cleaning", role)
	}
}

// rowSecurity finds tables of merchants' rows whose policy is not in force.
func (d *doctor) rowSecurity(ctx context.Context, pool *pgxpool.Pool) {
	var open string
	var n int
	if !d.asked(ctx, pool, "row-level security", `
		SELECT coalesce(string_agg(relname, ', ' ORDER BY relname) FILTER (WHERE NOT relrowsecurity OR NOT relforcerowsecurity), ''), count(*)::int
		FROM pg_class c WHERE EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'one_tenant')`, &open, &n) {
		return
	}
	switch {
	case open != "":
		d.say("row-level security", failed, "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, as the owner", "it is not in force on %s", open)
	case n == 0:
		d.say("row-level security", failed, "restore the schema, or make the database anew by `payments migrate`", "no table has the policy one_tenant")
	default:
		d.say("row-level security", fine, "", "in force on %d tables", n)
	}
}

// ownerRole has to own the tables, and to see the rows of all merchants.
func (d *doctor) ownerRole(ctx context.Context, pool *pgxpool.Pool) {
	var role string
	var owns, sees bool
	if !d.asked(ctx, pool, "owner", `
		SELECT rolname, EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = 'payments' AND pg_has_role(tableowner, 'USAGE')), rolsuper OR rolbypassrls
		FROM pg_roles WHERE rolname = current_user`, &role, &owns, &sees) {
		return
	}
	switch {
	case !owns:
		d.say("owner", failed, "let PAYMENTS_MIGRATE_DATABASE_URL have the role that ran `payments migrate` first", "%s does not own the tables", role)
	case !sees:
		d.say("owner", warned, "ALTER ROLE "+role+" BYPASSRLS", "%s is bound by row-level security: reports show no rows", role)
	default:
		d.say("owner", fine, "", "%s owns the tables and sees all rows", role)
	}
}

// keysets opens the newest payment's method, which is under both, and tries the operator's key.
func (d *doctor) keysets(ctx context.Context, pool *pgxpool.Pool, c config.Config) {
	if c.Pepper == nil || c.Cipher == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	const check = "keysets"
	var id, fingerprint string
	var ciphertext []byte
	err := pool.QueryRow(ctx, `SELECT id, payment_method, payment_method_ciphertext FROM payments WHERE payment_method_ciphertext IS NOT NULL ORDER BY id DESC LIMIT 1`).
		Scan(&id, &fingerprint, &ciphertext)
	switch methods := order.PaymentMethods(c.Pepper, c.Cipher); {
	case errors.Is(err, pgx.ErrNoRows):
		d.say(check, fine, "", "both are valid; nothing is stored under them yet")
	case err != nil:
		d.say(check, failed, "", "the newest payment cannot be read: %s", err)
	default:
		token, err := methods.Open(ciphertext, id)
		switch {
		case err != nil:
			d.say(check, failed, "bring back the keyset that the payments were stored with, or restore it beside the new one (docs/rotation.md)",
				"PAYMENTS_ENCRYPTION_KEYSET does not open what is stored of %s", id)
		case !slices.Contains(methods.Fingerprints(token), fingerprint):
			d.say(check, failed, "bring back the keyset that the payments and API keys were stored with (docs/rotation.md)",
				"PAYMENTS_PEPPER_KEYSET does not make the fingerprint that is stored of %s: no API key works", id)
		default:
			d.say(check, fine, "", "both fit what is stored")
		}
	}
	if key := d.value(operatorKey); key != "" {
		if _, err := access.NewAuthenticator(pool, c.Pepper).Authenticate(ctx, key, netip.Addr{}); err != nil {
			d.say("operator's key", failed, "set PAYMENTS_OPERATOR_KEY to a key that `payments keys list` shows as approved, neither expired nor revoked; if none works, PAYMENTS_PEPPER_KEYSET is another stack's",
				"PAYMENTS_OPERATOR_KEY: %s", err)
		} else {
			d.say("operator's key", fine, "", "PAYMENTS_OPERATOR_KEY works")
		}
	}
}

// lastAccount is the provider's account that was used last, or empty.
func (d *doctor) lastAccount(ctx context.Context, c config.Config) (account string) {
	if c.DatabaseURL == "" {
		return ""
	}
	pool, err := postgres.OpenMigrated(ctx, c.DatabaseURL)
	if err != nil {
		return ""
	}
	defer pool.Close()
	_ = pool.QueryRow(ctx, `SELECT account FROM provider_accounts ORDER BY last_used_at DESC LIMIT 1`).Scan(&account) // none, or told by the database's check
	return account
}
