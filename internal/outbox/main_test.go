package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/outbox"
	"payments/internal/postgres"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

// database has aggregates whose rows are locked as an order's row is. Both pools
// reach it: the service's role and the owner.
func database(t *testing.T) (service, owner *pgxpool.Pool) {
	t.Helper()
	db := devtest.Database(t)
	owner, service = open(t, db.OwnerURL), open(t, db.URL)
	if _, err := owner.Exec(t.Context(), `
		CREATE TABLE aggregates (key text PRIMARY KEY, sequence bigint NOT NULL);
		GRANT ALL ON aggregates TO PUBLIC`); err != nil {
		t.Fatal(err)
	}
	return service, owner
}

func open(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// next appends the key's next message as the service does: under the lock of
// the aggregate's row.
func next(ctx context.Context, tx pgx.Tx, key string) error {
	var n int64
	err := tx.QueryRow(ctx, `
		INSERT INTO aggregates VALUES ($1, 1)
		ON CONFLICT (key) DO UPDATE SET sequence = aggregates.sequence + 1 RETURNING sequence`, key).Scan(&n)
	if err != nil {
		return err
	}
	return outbox.Append(ctx, tx, message(key, n))
}

func message(key string, n int64) outbox.Message {
	return outbox.Message{
		MerchantID: "m", ID: fmt.Sprintf("%s-%d", key, n), Topic: "events", Key: key, Sequence: n, Payload: []byte(`{}`),
	}
}

func commit(t *testing.T, pool *pgxpool.Pool, keys ...string) {
	t.Helper()
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		for _, key := range keys {
			if err := next(t.Context(), tx, key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// begin leaves a transaction open that has appended the key's next message.
func begin(t *testing.T, pool *pgxpool.Pool, key string) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	if err := next(t.Context(), tx, key); err != nil {
		t.Fatal(err)
	}
	return tx
}

// wire records what was sent. before, when set, runs ahead of each batch and can refuse it.
type wire struct {
	before func(msgs []outbox.Message) error
	mu     sync.Mutex
	sent   []outbox.Message
}

func (w *wire) Publish(_ context.Context, msgs []outbox.Message) error {
	if w.before != nil {
		if err := w.before(msgs); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, msgs...)
	return nil
}

func (w *wire) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := []string{}
	for _, m := range w.sent {
		ids = append(ids, m.ID)
	}
	return ids
}

// inSequence fails unless the first deliveries of each key are 1, 2, 3 …, and
// returns how many messages came and how many came again.
func (w *wire) inSequence(t *testing.T) (first, again int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	first, again, inverted := count(w.sent)
	if inverted != 0 {
		t.Errorf("%d messages were delivered before one of their key that precedes them", inverted)
	}
	return first, again
}

// count tells apart the first deliveries, the repetitions, and the messages that
// came before one of their key that precedes them.
func count(sent []outbox.Message) (first, again, inverted int) {
	type one struct {
		key string
		n   int64
	}
	seen := map[one]bool{}
	for _, m := range sent {
		switch {
		case seen[one{m.Key, m.Sequence}]:
			again++
			continue
		case m.Sequence > 1 && !seen[one{m.Key, m.Sequence - 1}]:
			inverted++
		}
		first++
		seen[one{m.Key, m.Sequence}] = true
	}
	return first, again, inverted
}

// relay waits for all that it has handed out and writes a checkpoint every turn,
// unless c says otherwise.
func relay(t *testing.T, pool *pgxpool.Pool, p outbox.Publisher, c outbox.RelayConfig) (*outbox.Relay, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	c.Registerer, c.Log = reg, slog.New(slog.DiscardHandler)
	if c.Checkpoint == 0 {
		c.Checkpoint = time.Nanosecond
	}
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if c.Lease == 0 {
		c.Lease = time.Minute
	}
	r, err := outbox.NewRelay(pool, p, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Release(context.WithoutCancel(t.Context())) }) // gives its connection back
	return r, reg
}

// turn publishes all that the turn has read.
func turn(t *testing.T, r *outbox.Relay) (again bool) {
	t.Helper()
	again, err := r.RunOnce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.Idle(t.Context())
	return again
}

// settle turns until there is no more, and once more for the checkpoint.
func settle(t *testing.T, r *outbox.Relay) {
	t.Helper()
	for turn(t, r) {
	}
	turn(t, r)
}

// expire lets every relay's lease run out.
func expire(t *testing.T, owner *pgxpool.Pool) {
	t.Helper()
	execute(t, owner, `UPDATE outbox_relays SET lease_until = clock_timestamp() - interval '1 s'`)
}

func execute(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query[T any](t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (v T) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func metric(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if slices.Equal(values, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s%v", name, labels)
	return 0
}

func sorted(ids []string) []string {
	slices.Sort(ids)
	return ids
}
