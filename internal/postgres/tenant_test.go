package postgres_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

const (
	shopA = "mer_0000000000000000000000000a"
	shopB = "mer_0000000000000000000000000b"
)

// oneConnection is a pool of one session, so that what a tenant leaves behind in it
// meets the next; with two shops and an article of each.
func oneConnection(t *testing.T) (pool *pgxpool.Pool, url string) {
	t.Helper()
	url = devtest.Database(t).URL
	pool, err := postgres.Open(t.Context(), url+"?pool_max_conns=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for _, sql := range []string{
		`INSERT INTO merchants (id, name) VALUES ('` + shopA + `', 'A'), ('` + shopB + `', 'B')`,
		`INSERT INTO stock (merchant_id, sku, received, on_hand) VALUES ('` + shopA + `', 'X', 1, 1), ('` + shopB + `', 'X', 1, 1)`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return pool, url
}

// Every way to the database shows a tenant's rows alone, without a WHERE.
func TestATenantSeesItsOwnRowsAlone(t *testing.T) {
	pool, _ := oneConnection(t)
	const sql = `SELECT merchant_id FROM stock UNION ALL SELECT id FROM merchants ORDER BY 1`
	collect := func(rows pgx.Rows, failed error) []string {
		t.Helper()
		if failed != nil {
			t.Fatal(failed)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	ways := map[string]func(ctx context.Context) []string{
		"the pool": func(ctx context.Context) []string { return collect(pool.Query(ctx, sql)) },
		"Query":    func(ctx context.Context) []string { return collect(postgres.Query(ctx, pool, sql)) },
		"Query with arguments": func(ctx context.Context) []string {
			return collect(postgres.Query(ctx, pool, `SELECT merchant_id FROM stock WHERE sku = $1 UNION ALL SELECT id FROM merchants ORDER BY 1`, "X"))
		},
		"InTx": func(ctx context.Context) (all []string) {
			if err := postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
				all = collect(tx.Query(ctx, sql))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return all
		},
		"a transaction of the pool's": func(ctx context.Context) (all []string) {
			if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				all = collect(tx.Query(ctx, sql))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return all
		},
	}
	for name, way := range ways {
		for tenant, want := range map[string][]string{
			shopA: {shopA, shopA}, shopB: {shopB, shopB}, "mer_0000000000000000000000000c": {}, "": {},
			"*": {}, "x', true); SELECT set_config('payments.merchant', '*": {},
		} {
			if got := way(postgres.ForTenant(t.Context(), tenant)); !slices.Equal(got, want) {
				t.Errorf("%s for %q: %v, want %v", name, tenant, got, want)
			}
			// The service's own work in the same session, whatever the tenant left in it.
			for other, way := range ways {
				if got := way(t.Context()); !slices.Equal(got, []string{shopA, shopA, shopB, shopB}) {
					t.Errorf("%s for everybody after %s for %q: %v", other, name, tenant, got)
				}
			}
		}
	}
}

func TestATenantWritesItsOwnRowsAlone(t *testing.T) {
	pool, url := oneConnection(t)
	ctx := postgres.ForTenant(t.Context(), shopA)
	for _, sql := range []string{
		`INSERT INTO stock (merchant_id, sku, received, on_hand) VALUES ('` + shopB + `', 'Y', 1, 1)`,
		`UPDATE stock SET merchant_id = '` + shopB + `'`,
	} {
		if _, err := pool.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "row-level security") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, sql := range []string{`UPDATE stock SET on_hand = 2, received = 2`, `DELETE FROM stock`} {
		if tag, err := pool.Exec(ctx, sql); err != nil || tag.RowsAffected() != 1 {
			t.Errorf("%s: %v rows, %v", sql, tag.RowsAffected(), err)
		}
	}
	// A session that nobody told a tenant sees nothing.
	bare, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close(context.WithoutCancel(t.Context()))
	var n int
	if err := bare.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM stock) + (SELECT count(*) FROM merchants)`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestQueryGivesItsConnectionBack(t *testing.T) {
	pool, _ := oneConnection(t)
	ctx := postgres.ForTenant(t.Context(), shopA)
	for _, sql := range []string{`SELECT 1/0`, `SELECT nonsense`, `SELECT 1 / (2 - n) FROM generate_series(1, 5) AS n`} {
		rows, err := postgres.Query(ctx, pool, sql)
		if err == nil {
			_, err = pgx.CollectRows(rows, pgx.RowTo[int])
		}
		if err == nil {
			t.Errorf("%s succeeds", sql)
		}
	}
	rows, err := postgres.Query(ctx, pool, `SELECT generate_series(1, 1000)`)
	if err != nil {
		t.Fatal(err)
	}
	rows.Close() // before its end
	if n := pool.Stat().AcquiredConns(); n != 0 {
		t.Fatalf("%d connections are not given back", n)
	}
	if got, err := pgx.CollectRows(rows, pgx.RowTo[int]); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// Whoever makes a table with a merchant_id has to call isolate_tenants for it.
func TestEveryTenantTableIsIsolated(t *testing.T) {
	pool, _ := oneConnection(t)
	rows, err := pool.Query(t.Context(), `
		SELECT c.relname FROM pg_class c
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
			AND (c.relname = 'merchants' OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'merchant_id' AND NOT attisdropped))
			AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND (
				SELECT count(*) = 1 AND bool_and(polname = 'one_tenant' AND polcmd = '*' AND polroles = '{0}' AND polwithcheck IS NULL)
				FROM pg_policy WHERE polrelid = c.oid))`)
	if err != nil {
		t.Fatal(err)
	}
	open, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(open) > 0 {
		t.Errorf("without row-level security: %v (%v)", open, err)
	}
	var isolated int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_policy WHERE polname = 'one_tenant'`).Scan(&isolated); err != nil || isolated < 15 {
		t.Errorf("%d tables are isolated (%v)", isolated, err)
	}
	var bypass bool
	if err := pool.QueryRow(t.Context(), `SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = current_user`).Scan(&bypass); err != nil || bypass {
		t.Errorf("the service's role goes around row-level security (%v)", err)
	}
}
