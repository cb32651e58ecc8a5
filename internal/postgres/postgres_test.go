package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

func TestInTxRollsBackAfterItsContextEnded(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	ctx, cancel := context.WithCancel(t.Context())
	wrong := errors.New("wrong")
	err = postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO merchants (id, name) VALUES ('mer_00000000000000000000000000', 'x')`); err != nil {
			return err
		}
		cancel()
		return wrong
	})
	if !errors.Is(err, wrong) {
		t.Fatal(err)
	}
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM merchants`).Scan(&n); err != nil || n != 0 {
		t.Fatalf("%d rows (%v)", n, err)
	}
}

func TestErrorsAreToldApart(t *testing.T) {
	db := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	_, err = pool.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ('nonsense', 'x')`)
	if postgres.Constraint(err) != "merchants_id_check" || postgres.Unavailable(err) || !postgres.DataError(err) {
		t.Fatalf("%v", err)
	}
	away, err := postgres.Open(t.Context(), "postgres://a:b@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	if err := away.Ping(t.Context()); !postgres.Unavailable(err) {
		t.Fatalf("%v", err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `SELECT pg_terminate_backend(pg_backend_pid())`)
	if !postgres.Unavailable(err) {
		t.Fatalf("%v", err)
	}
}

func TestTheServiceCannotRewriteWhatHasHappened(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, sql := range []string{
		`UPDATE outbox SET payload = ''`, `DELETE FROM outbox`, `DELETE FROM payments`, `UPDATE idempotency_keys SET status = 201`,
		`UPDATE saga_actions SET operator = 'grace'`, `DELETE FROM saga_actions`, `DELETE FROM refunds`, `DELETE FROM stock_reservations`,
		`DELETE FROM sagas`, `CREATE TABLE mine (id int)`, `ALTER TABLE payments DISABLE TRIGGER ALL`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is allowed", sql)
		}
	}
}

// A pool of an old schema gives nobody a connection, in whatever way one is asked for,
// until the schema is migrated.
func TestAnOldSchemaIsNotUsed(t *testing.T) {
	db := devtest.Database(t)
	owner, err := postgres.Open(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	var newest int64
	if err := owner.QueryRow(t.Context(), `
		DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version) RETURNING version_id`).Scan(&newest); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.OpenMigrated(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	uses := map[string]func() error{
		"ping": func() error { return pool.Ping(t.Context()) },
		"exec": func() error { _, err := pool.Exec(t.Context(), `SELECT 1`); return err },
		"transaction of a tenant": func() error {
			return postgres.InTx(postgres.ForTenant(t.Context(), "mer_1"), pool, func(pgx.Tx) error { return nil })
		},
		"query of a tenant": func() error {
			rows, err := postgres.Query(postgres.ForTenant(t.Context(), "mer_1"), pool, `SELECT 1`)
			if err == nil {
				rows.Close()
			}
			return err
		},
	}
	for name, use := range uses {
		if err := use(); !errors.Is(err, postgres.ErrSchema) || postgres.Unavailable(err) {
			t.Errorf("%s of an old schema: %v", name, err)
		}
	}
	if _, err := owner.Exec(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)`, newest); err != nil {
		t.Fatal(err)
	}
	for name, use := range uses {
		if err := use(); err != nil {
			t.Errorf("%s of a migrated schema: %v", name, err)
		}
	}
}
