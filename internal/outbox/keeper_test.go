package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/outbox"
	"payments/internal/postgres"
)

const small = 4 // messages in a partition

// small partitions: the template's first one, of a million, makes room for them.
func smallPartitions(t *testing.T) (pool, owner *pgxpool.Pool) {
	t.Helper()
	pool, owner = database(t)
	execute(t, owner, `
		ALTER TABLE outbox DETACH PARTITION outbox_parts.outbox_1;
		DROP TABLE outbox_parts.outbox_1;
		DELETE FROM outbox_partitions WHERE parent = 'outbox'`)
	return pool, owner
}

func keeper(t *testing.T, pool *pgxpool.Pool) (*outbox.Keeper, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	k, err := outbox.NewKeeper(pool, outbox.KeeperConfig{
		Size: small, Retention: time.Nanosecond, Registerer: reg, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return k, reg
}

func keep(t *testing.T, k *outbox.Keeper) {
	t.Helper()
	for range 10 {
		again, err := k.RunOnce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !again {
			return
		}
	}
	t.Fatal("the keeper finds no end")
}

const partitions = `SELECT count(*) FROM pg_inherits WHERE inhparent = 'outbox'::regclass`

func TestPartitionsStandReadyAheadOfWriters(t *testing.T) {
	pool, _ := smallPartitions(t)
	k, reg := keeper(t, pool)
	keep(t, k)
	if got := query[int](t, pool, partitions); got != 2 {
		t.Errorf("%d partitions are ready, want 2", got)
	}
	if got := metric(t, reg, "payments_outbox_positions_left"); got != 2*small {
		t.Errorf("%v positions are left, want %d", got, 2*small)
	}
	// A writer is in the table, and waits for nobody while partitions are made.
	tx := begin(t, pool, "early")
	for n := range 5 {
		for range small {
			commit(t, pool, fmt.Sprint("k", n))
		}
		keep(t, k)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRetentionWaitsForTransactionsAndShards(t *testing.T) {
	pool, _ := smallPartitions(t)
	k, reg := keeper(t, pool)
	keep(t, k)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 2})
	turn(t, r)
	held := func(by string) {
		t.Helper()
		keep(t, k)
		for _, reason := range []string{"transaction", "shard", "gap", "lock"} {
			if got := metric(t, reg, "payments_outbox_retention_overdue_seconds", by2(reason)...); (got > 0) != (reason == by) {
				t.Errorf("held by %s for %v s, want to be held by %q", reason, got, by)
			}
		}
	}
	early := begin(t, pool, "early")
	for range 2 * small {
		commit(t, pool, "a", "b")
		keep(t, k)
	}
	settle(t, r)
	before := query[int](t, pool, partitions)
	held("transaction") // it may still write into the partition, for all that is known
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	held("shard") // the relay has not seen early
	settle(t, r)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, pool, partitions); got != before {
		t.Errorf("%d of %d partitions are left while they were held", got, before)
	}
	writer := begin(t, pool, "late") // whoever is in the table keeps it from being changed, and is not waited for
	held("lock")
	if err := writer.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	held("")
	if got := query[int](t, pool, `SELECT min(position) FROM outbox`); got < 2*small {
		t.Errorf("position %d is still there", got)
	}
	if first, again := w.inSequence(t); first != 1+4*small || again != 0 {
		t.Errorf("%d messages were published, %d twice; want %d", first, again, 1+4*small)
	}
	if got := metric(t, reg, "payments_outbox_partitions_dropped_total", "outbox"); got < 4 {
		t.Errorf("%v partitions were dropped, want 4 at least", got)
	}
	// Dropped and left together are what each key has had.
	rest := query[int](t, pool, `SELECT (SELECT sum(sequence) FROM outbox_dropped) + (SELECT count(*) FROM outbox
		WHERE position >= (SELECT max(high) FROM outbox_partitions WHERE sealed))`)
	if rest != 1+4*small {
		t.Errorf("dropped and left are %d messages, want %d", rest, 1+4*small)
	}
	commit(t, pool, "a")
	settle(t, r)
	same(t, "the last message after the drop", w.ids()[len(w.ids())-1:], fmt.Sprintf("a-%d", 2*small+1))
}

func by2(reason string) []string { return []string{reason, "outbox"} }

// A gap is evidence of a fault: retention does not destroy it.
func TestRetentionKeepsAPartitionWithAGap(t *testing.T) {
	pool, _ := smallPartitions(t)
	k, reg := keeper(t, pool)
	keep(t, k)
	for n := range int64(2 * small) {
		err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			return outbox.Append(t.Context(), tx, message("a", 2*n+1))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	keep(t, k)
	r, _ := relay(t, pool, &wire{}, outbox.RelayConfig{})
	settle(t, r)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	keep(t, k)
	if got := metric(t, reg, "payments_outbox_retention_overdue_seconds", by2("gap")...); got <= 0 {
		t.Error("the gap is not told")
	}
	if got := query[int](t, pool, `SELECT min(position) FROM outbox`); got != 1 {
		t.Error("the partition with the gap is gone")
	}
}

func TestTheServiceCannotDropWhatIsNotPublished(t *testing.T) {
	pool, _ := database(t)
	commit(t, pool, "a")
	for _, sql := range []string{
		`DROP TABLE outbox_parts.outbox_1`, `TRUNCATE outbox`, `DELETE FROM outbox_parts.outbox_1`, `UPDATE outbox_parts.outbox_1 SET payload = ''`,
		`UPDATE outbox_partitions SET sealed = true`, `DELETE FROM outbox_dropped`, `DELETE FROM outbox_checkpoints`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is allowed", sql)
		}
	}
}

// What a relay asks for each turn must not grow with what is kept: the plan passes
// neither the primary key nor the partitions that lie behind the cursor.
func TestReadingAWindowPassesClosedPartitions(t *testing.T) {
	pool, _ := smallPartitions(t)
	k, _ := keeper(t, pool)
	keep(t, k)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	for n := range 5 * small {
		commit(t, pool, "a")
		keep(t, k)
		r.Heartbeat()
		settle(t, r)
		if first, again := w.inSequence(t); first != n+1 || again != 0 {
			t.Fatalf("%d of %d messages were published, %d twice", first, n+1, again)
		}
	}
	if low, last := r.Low(), query[int64](t, pool, `SELECT max(position) FROM outbox`); low <= last-small {
		t.Errorf("a window begins at position %d of %d", low, last)
	}
}

// The writers' side of retention, naive: CREATE … PARTITION OF locks the whole table.
func TestMakingAPartitionTheNaiveWayWaitsForWriters(t *testing.T) {
	pool, owner := smallPartitions(t)
	k, _ := keeper(t, pool)
	keep(t, k)
	begin(t, pool, "a")
	naive := func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, owner, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '100ms'`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `CREATE TABLE outbox_parts.naive PARTITION OF outbox FOR VALUES FROM (1000) TO (2000)`)
			return err
		})
	}
	if err := naive(t.Context()); !postgres.Unavailable(err) {
		t.Errorf("CREATE … PARTITION OF = %v, want that it waits in vain: the test does not provoke the fault", err)
	}
	for range small {
		commit(t, pool, "b")
	}
	keep(t, k) // attaches one
}

// A snapshot's xmax is the number behind the last transaction that has ended: one that runs may have that number, or a higher one.
func TestATransactionThatDrewAPartitionsLastPositionIsNotTakenForPassed(t *testing.T) {
	pool, _ := smallPartitions(t)
	k, _ := keeper(t, pool)
	keep(t, k)
	commit(t, pool, "a", "b", "c")
	late := begin(t, pool, "late") // draws the last position of the first partition
	keep(t, k)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	turn(t, r)
	turn(t, r)
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	same(t, "published", w.ids(), "a-1", "b-1", "c-1", "late-1")
}
