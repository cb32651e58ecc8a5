package readmodel

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// viewTables are the tables of the read model. What they look like is the
// migrations' word alone: the new ones are made in the image of the live ones.
var viewTables = [...]string{"payment_view", "refund_view", "payment_timeline", "payment_term"} //nolint:gochecknoglobals // a constant, were arrays constants

// liveTables are viewTables with their schema.
func liveTables() []string {
	var names []string
	for _, t := range viewTables {
		names = append(names, "public."+t)
	}
	return names
}

// swapStatements run in one transaction. The names of tables, indexes and
// constraints are the same in both schemas, so that nothing is renamed.
var swapStatements = [...]string{ //nolint:gochecknoglobals // a constant, were arrays constants
	`SET LOCAL lock_timeout = '` + swapPatience + `'`,
	`DROP TABLE public.payment_view, public.refund_view, public.payment_timeline, public.payment_term`,
	`ALTER TABLE payment_view_next.payment_view SET SCHEMA public`,
	`ALTER TABLE payment_view_next.refund_view SET SCHEMA public`,
	`ALTER TABLE payment_view_next.payment_timeline SET SCHEMA public`,
	`ALTER TABLE payment_view_next.payment_term SET SCHEMA public`,
	`DROP SCHEMA payment_view_next CASCADE`,
}

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// consumer is the rebuild's own name in the inbox.
func (b *rebuild) consumer() string { return b.Consumer + "_next" }

// forget removes what the rebuild's own consumer has left in the inbox.
func forget(ctx context.Context, db execer, consumer string) error {
	for _, sql := range []string{
		`DELETE FROM public.inbox_parked p USING public.inbox_parked_keys k WHERE k.id = p.parked_key AND k.consumer = $1`,
		`DELETE FROM public.inbox_parked_keys WHERE consumer = $1`,
		`DELETE FROM public.inbox_messages WHERE consumer = $1`,
		`DELETE FROM public.inbox_offsets WHERE consumer = $1`,
	} {
		if _, err := db.Exec(ctx, sql, consumer); err != nil {
			return fmt.Errorf("remove the rebuild's own consumer: %w", err)
		}
	}
	return nil
}

// clean removes what a rebuild that was killed has left.
func (b *rebuild) clean(ctx context.Context) error {
	if _, err := b.conn.Exec(ctx, `DROP SCHEMA IF EXISTS `+schemaNext+` CASCADE`); err != nil {
		return fmt.Errorf("remove the leftovers: %w", err)
	}
	return forget(ctx, b.conn, b.consumer())
}

// abandon is clean after a failure, as far as there is a connection for it: the
// rebuild's own may have been canceled in the middle of a statement.
func (b *rebuild) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	err := b.conn.Ping(ctx)
	if err == nil {
		err = b.clean(ctx)
	}
	if err != nil {
		b.Logger.WarnContext(ctx, "leftovers of this rebuild stay until the next", "error", err)
	}
}

// makeTables makes empty tables with the columns, defaults, checks, storage
// parameters and grants of the live ones. It refuses what a swap would lose.
func (b *rebuild) makeTables(ctx context.Context) error {
	var bound []string
	// A view or a foreign key is bound to the table, not to its name; triggers and
	// policies would go with the old one, but for the tenants', which is made anew.
	if err := b.conn.QueryRow(ctx, `
		SELECT coalesce(array_agg(DISTINCT what), '{}') FROM (
			SELECT r.ev_class::regclass::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
			WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1::text[]::regclass[])
			UNION SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = ANY ($1::text[]::regclass[])
			UNION SELECT 'policy ' || polname FROM pg_policy
				WHERE polrelid = ANY ($1::text[]::regclass[]) AND polname <> 'one_tenant') b (what)`,
		liveTables()).Scan(&bound); err != nil {
		return fmt.Errorf("look at the live tables: %w", err)
	}
	if len(bound) > 0 {
		return fmt.Errorf("bound to the live tables, and lost or left behind by a swap: %s", strings.Join(bound, ", "))
	}
	statements := []string{`CREATE SCHEMA ` + schemaNext}
	for _, t := range viewTables {
		statements = append(statements, fmt.Sprintf(`CREATE TABLE %s.%s (LIKE public.%s INCLUDING ALL EXCLUDING INDEXES)`, schemaNext, t, t))
		more, err := b.describe(ctx, `
			SELECT format('ALTER TABLE `+schemaNext+`.%I SET (%s)', relname, array_to_string(reloptions, ', '))
			FROM pg_class WHERE oid = $1::text::regclass AND reloptions IS NOT NULL
			UNION ALL
			SELECT format('GRANT %s ON `+schemaNext+`.%I TO %s', a.privilege_type, c.relname,
				CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
			FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1::text::regclass AND a.grantee <> c.relowner`, t)
		if err != nil {
			return err
		}
		statements = append(statements, more...)
	}
	// What compare finds to be looked at again, and what differs for certain.
	statements = append(statements,
		`CREATE TABLE `+schemaNext+`.unsettled (merchant_id text COLLATE "C", payment_id text COLLATE "C", PRIMARY KEY (merchant_id, payment_id))`,
		`CREATE TABLE `+schemaNext+`.different (merchant_id text COLLATE "C", payment_id text COLLATE "C", what text NOT NULL, PRIMARY KEY (merchant_id, payment_id))`,
		// Keys that wait for a person now: what is applied of them meanwhile does not come by the log again.
		`CREATE TABLE `+schemaNext+`.parked_before (order_id text COLLATE "C" PRIMARY KEY)`)
	return b.execute(ctx, statements)
}

// index makes the indexes, keys and policies of the live tables, by the same names,
// once all rows are there.
func (b *rebuild) index(ctx context.Context) error {
	if err := b.keepLines(ctx); err != nil {
		return err
	}
	for _, t := range viewTables {
		statements, err := b.describe(ctx, `
			SELECT CASE WHEN c.oid IS NULL
				THEN replace(pg_get_indexdef(i.indexrelid), ' ON public.', ' ON `+schemaNext+`.')
				ELSE format('ALTER TABLE `+schemaNext+`.%I ADD CONSTRAINT %I %s', t.relname, c.conname, pg_get_constraintdef(c.oid)) END
			FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
				LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
			WHERE i.indrelid = $1::text::regclass ORDER BY c.oid IS NULL, i.indexrelid`, t)
		if err != nil {
			return err
		}
		// COPY does not go into a table with policies, but for a role that they do not bind.
		statements = append(statements, fmt.Sprintf(`SELECT public.isolate_tenants('%s.%s')`, schemaNext, t))
		if err := b.execute(ctx, statements); err != nil {
			return err
		}
	}
	return b.vacuum(ctx, "payment_timeline")
}

// describe gives the statements that a query over the catalog writes.
func (b *rebuild) describe(ctx context.Context, sql, table string) ([]string, error) {
	rows, err := b.conn.Query(ctx, sql, "public."+table)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", table, err)
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", table, err)
	}
	return statements, nil
}

func (b *rebuild) execute(ctx context.Context, statements []string) error {
	for _, sql := range statements {
		if _, err := b.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
