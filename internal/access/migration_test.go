package access

import (
	"database/sql"
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"payments/internal/devstack/devtest"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/migrations"
)

// owned is a database in the hands of its owner, who sees every tenant.
func owned(t *testing.T, url string) (*sql.DB, *goose.Provider) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["payments.merchant"] = "*"
	owner := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = owner.Close() })
	versions, err := goose.NewProvider(goose.DialectPostgres, owner, migrations.FS)
	if err != nil {
		t.Fatal(err)
	}
	return owner, versions
}

// Nobody gains by the migration: a key is its own holder, its successors have the same
// one, and so has what was proposed by it. What was kept by looser rules does not stop it.
func TestTheMigrationMakesEachKeyItsOwnHolder(t *testing.T) {
	db := devtest.Database(t)
	owner, versions := owned(t, db.OwnerURL)
	const ours, looser = 18, 13
	if _, err := versions.DownTo(t.Context(), looser); err != nil {
		t.Fatal(err)
	}
	merchant, saga := generator.New(payment.PrefixMerchant), generator.New(payment.PrefixSaga)
	key := map[string]string{}
	for _, name := range []string{"first", "second", "third", "alone", "shop's", "shop's next"} {
		key[name] = generator.New(payment.PrefixKey)
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := owner.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, merchant)
	for name, id := range key {
		role, of := RoleOperator, ""
		if strings.HasPrefix(name, "shop's") {
			role, of = RoleMerchant, merchant
		}
		exec(`INSERT INTO api_keys (id, merchant_id, role, mac) VALUES ($1, nullif($2, ''), $3, sha256(''))`, id, of, role)
	}
	for before, after := range map[string]string{"first": "second", "second": "third", "shop's": "shop's next"} {
		exec(`UPDATE api_keys SET replaced_by = $2 WHERE id = $1`, key[before], key[after])
	}
	exec(`INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, abortable, data, due_at)
		VALUES ($1, $2, 'order', 1, 'ord', 'running', 's', true, '{}', now())`, merchant, saga)
	for i, operator := range []string{key["second"], key["alone"], "Zo\u00eb"} {
		exec(`INSERT INTO saga_actions (merchant_id, saga_id, number, action, operator, reason, step)
			VALUES ($1, $2, $3, 'pause', $4, ' ', 's')`, merchant, saga, i+1, operator)
	}
	if err := postgres.Migrate(t.Context(), db.OwnerURL, db.URL); err != nil {
		t.Fatal(err)
	}
	holders := pairs(t, owner, `SELECT id, coalesce(holder, '') FROM api_keys`)
	if want := map[string]string{
		key["first"]: key["first"], key["second"]: key["first"], key["third"]: key["first"], key["alone"]: key["alone"], key["shop's"]: "", key["shop's next"]: "",
	}; !maps.Equal(holders, want) {
		t.Errorf("holders %v, want %v", holders, want)
	}
	acts := pairs(t, owner, `SELECT operator, holder FROM saga_actions`)
	if want := map[string]string{key["second"]: key["first"], key["alone"]: key["alone"], "Zo\u00eb": "Zo\u00eb"}; !maps.Equal(acts, want) {
		t.Errorf("acted have %v, want %v", acts, want)
	}
	const nobodys = `INSERT INTO api_keys (id, role, mac) VALUES ($1, 'auditor', sha256(''))`
	if _, err := owner.ExecContext(t.Context(), nobodys, generator.New(payment.PrefixKey)); postgres.Constraint(err) != "api_keys_holder" {
		t.Errorf("a key of nobody's: %v", err)
	}

	if _, err := versions.DownTo(t.Context(), ours-1); err != nil {
		t.Fatal(err)
	}
	exec(nobodys, generator.New(payment.PrefixKey))
	if err := postgres.Migrate(t.Context(), db.OwnerURL, db.URL); err != nil {
		t.Errorf("up again: %v", err)
	}
}

func pairs(t *testing.T, db *sql.DB, query string) map[string]string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var a, b string
		if err := rows.Scan(&a, &b); err != nil {
			t.Fatal(err)
		}
		all[a] = b
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
