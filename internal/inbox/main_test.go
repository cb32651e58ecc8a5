package inbox

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func TestMain(m *testing.M) {
	if os.Getenv(childURL) != "" {
		if err := child(os.Getenv(childMode)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	devtest.Main(m, devtest.WithMigrations(postgres.Migrate))
}

func childInbox(pool *pgxpool.Pool, h func(context.Context, pgx.Tx, Message) error) (*Inbox, error) {
	return New(pool, "test", each(h), Config{
		MaxAttempts: childAttempts, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
}

// database has a table in which handlers leave their effects; the pool is the
// service's role.
func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	db := devtest.Database(t)
	owner, err := pgx.Connect(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	if _, err := owner.Exec(t.Context(), `
		CREATE TABLE effects (n int GENERATED ALWAYS AS IDENTITY, id text NOT NULL, positive int CHECK (positive > 0));
		CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
		GRANT ALL ON effects, late TO PUBLIC`); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func open(t *testing.T, pool *pgxpool.Pool, h func(context.Context, pgx.Tx, Message) error, with ...func(*Config)) (*Inbox, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	c := Config{Log: slog.New(slog.DiscardHandler), Registerer: reg}
	for _, w := range with {
		w(&c)
	}
	in, err := New(pool, "test", each(h), c)
	if err != nil {
		t.Fatal(err)
	}
	return in, reg
}

// restart is the same consumer in another process.
func restart(t *testing.T, pool *pgxpool.Pool, h func(context.Context, pgx.Tx, Message) error, with ...func(*Config)) *Inbox {
	t.Helper()
	in, _ := open(t, pool, h, with...)
	return in
}

// each makes a handler of one that knows single messages.
func each(handle func(ctx context.Context, tx pgx.Tx, m Message) error) Handler {
	return func(ctx context.Context, tx pgx.Tx, batch []Message) error {
		for _, m := range batch {
			if err := handle(ctx, tx, m); err != nil {
				return err
			}
		}
		return nil
	}
}

func record(ctx context.Context, tx pgx.Tx, m Message) error {
	_, err := tx.Exec(ctx, `INSERT INTO effects (id) VALUES ($1)`, m.Headers[HeaderID])
	return err
}

// message is the nth of a key; its id says both.
func message(offset int64, key string, n int) Message {
	return Message{
		Topic: "events", Offset: offset, Key: []byte(key), Value: []byte(`{}`),
		Headers: map[string]string{HeaderID: fmt.Sprintf("%s-%d", key, n)},
	}
}

func column(t *testing.T, pool *pgxpool.Pool, sql string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func effects(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	return column(t, pool, `SELECT id FROM effects ORDER BY n`)
}

func deadLetters(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	return column(t, pool, `SELECT coalesce(headers->>'ce_id', '') FROM inbox_parked ORDER BY "offset", partition`)
}

// metric sums what has the name and, when given, the result.
func metric(t *testing.T, reg *prometheus.Registry, name, result string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == name && labels["result"] == result && labels["consumer"] == "test" {
				found = true
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	if !found {
		t.Fatalf("no metric %s{consumer=test,result=%q}", name, result)
	}
	return sum
}

// dated is the nth message of a key, with an id that was made at the time.
func dated(offset int64, at time.Time, key string, n int) Message {
	m := message(offset, key, n)
	ms := at.UnixMilli()
	m.Headers[HeaderID] = fmt.Sprintf("%08x-%04x-7%03x-8000-%012x", ms>>16, ms&0xffff, n, key[0])
	m.Headers["n"] = strconv.Itoa(n)
	return m
}

// recordNext keeps a watermark for each key in the effects themselves.
func recordNext(ctx context.Context, tx pgx.Tx, m Message) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO effects (id, positive) SELECT $1, $2::int
		WHERE $2::int = 1 + (SELECT coalesce(max(positive), 0) FROM effects WHERE id = $1)`, string(m.Key), m.Headers["n"])
	return err
}

// awaitLock returns once a session waits for another's lock.
func awaitLock(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Second); ; {
		var waiting bool
		if err := pool.QueryRow(t.Context(), `
			SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if waiting {
			return
		}
		if time.Now().After(deadline) {
			t.Error("nobody waits for a lock")
			return
		}
	}
}
