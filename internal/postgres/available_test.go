package postgres_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func TestWhatIsUnavailable(t *testing.T) {
	for code, want := range map[string]bool{
		"25006": true,  // read_only_sql_transaction
		"57P01": true,  // admin_shutdown
		"57P02": true,  // crash_shutdown
		"57P03": true,  // cannot_connect_now
		"57P04": true,  // database_dropped
		"08006": true,  // connection_failure
		"57014": true,  // query_canceled
		"53300": true,  // too_many_connections
		"55P03": true,  // lock_not_available
		"40001": true,  // serialization_failure
		"25P03": true,  // idle_in_transaction_session_timeout
		"23505": false, // unique_violation
		"42501": false, // insufficient_privilege
		"28P01": false, // invalid_password
		"XX000": false, // internal_error
	} {
		if got := postgres.Unavailable(fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s is unavailable: %v", code, got)
		}
	}
	if postgres.Unavailable(nil) || postgres.Unavailable(errors.New("other")) {
		t.Error("nothing is unavailable that says nothing of it")
	}
	if !postgres.Unavailable(fmt.Errorf("x: %w", pgconn.ErrReadOnlyConnection)) {
		t.Error("a read-only connection is available")
	}
}

// After a failover the pool's connections lead to a server that is read-only now, and stays
// alive. The first statement that says so costs all of them; none of the next is used unless it takes writes.
func TestThePoolLeavesAServerThatIsReadOnly(t *testing.T) {
	db := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	owner, err := pgx.Connect(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(t.Context()) }()
	acquire(t, pool, 4)
	if err := postgres.Ready(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	// What a server does that was demoted: the sessions that are there stay.
	database := name(t, pool)
	held, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set(t, owner, `ALTER DATABASE `+database+` SET default_transaction_read_only = on`)
	if _, err := held.Exec(t.Context(), `SET default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	_, err = held.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ('mer_00000000000000000000000000', 'x')`)
	if !postgres.Unavailable(err) {
		t.Fatalf("a write on a read-only server: %v", err)
	}
	if !held.Conn().IsClosed() {
		t.Error("the connection is kept")
	}
	held.Release()
	if n := pool.Stat().IdleConns(); n != 0 {
		t.Errorf("%d connections to the read-only server are kept", n)
	}
	for what, err := range map[string]error{
		"a read":    exec(t, pool, `SELECT 1`),
		"readiness": postgres.Ready(t.Context(), pool),
		"a ping":    pool.Ping(t.Context()),
	} {
		if !postgres.Unavailable(err) {
			t.Errorf("%s by the read-only server: %v", what, err)
		}
	}
	set(t, owner, `ALTER DATABASE `+database+` SET default_transaction_read_only = off`)
	if err := errors.Join(exec(t, pool, `SELECT 1`), postgres.Ready(t.Context(), pool)); err != nil {
		t.Errorf("by the server that takes writes: %v", err)
	}
}

// A pool that only reads learns of it as well: from the server, without a question.
func TestAPoolThatOnlyReadsLeavesAServerThatIsReadOnly(t *testing.T) {
	db := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	pid := func(pool *pgxpool.Pool) (pid int) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	before := pid(pool)
	if pid(pool) != before {
		t.Fatal("the pool does not keep its connection")
	}
	if err := exec(t, pool, `SET default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	if pid(pool) == before {
		t.Error("the pool reads on from the read-only server")
	}
	reading, err := postgres.Open(t.Context(), db.URL+"?target_session_attrs=any")
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	before = pid(reading)
	if err := exec(t, reading, `SET default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	if pid(reading) != before {
		t.Error("a pool of any server has left one")
	}
	if err := postgres.Ready(t.Context(), reading); !postgres.Unavailable(err) {
		t.Errorf("a read-only server is ready: %v", err)
	}
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string) error {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql)
	return err
}

// acquire makes n connections and gives them back.
func acquire(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	var held []*pgxpool.Conn
	for range n {
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	for _, c := range held {
		c.Release()
	}
}

func set(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func name(t *testing.T, pool *pgxpool.Pool) (database string) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT quote_ident(current_database())`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	return database
}
