package inbox

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/postgres"
)

// afterRecord calls then once an attempt is on record, and its transaction has not begun yet.
type afterRecord struct{ then func() }

type recording struct{}

func (afterRecord) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	recorded := slices.ContainsFunc(data.Batch.QueuedQueries, func(q *pgx.QueuedQuery) bool {
		return strings.Contains(q.SQL, "synchronous_commit")
	})
	return context.WithValue(ctx, recording{}, recorded)
}

func (afterRecord) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (afterRecord) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (afterRecord) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (a afterRecord) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchEndData) {
	if ctx.Value(recording{}) == true {
		a.then()
	}
}

// traced is a pool of the same database.
func traced(t *testing.T, pool *pgxpool.Pool, recorded func()) *pgxpool.Pool {
	t.Helper()
	config := pool.Config()
	config.ConnConfig.Tracer = afterRecord{recorded}
	own, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Close)
	return own
}

// claimMeanwhile claims events/0 in another process, and returns once the claim has come to an
// end or waits for a lock. The offset that it was given is sent when it is.
func claimMeanwhile(t *testing.T, pool *pgxpool.Pool, heir *Inbox, generation int) <-chan Offset {
	t.Helper()
	claimed, done := make(chan Offset, 1), make(chan struct{})
	go func() {
		defer close(done)
		at, err := heir.Claim(t.Context(), "events", 0, generation, nil)
		if err != nil {
			t.Error(err)
		}
		claimed <- at
	}()
	for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); {
		select {
		case <-done:
			return claimed
		default:
		}
		var waits bool
		if err := pool.QueryRow(t.Context(), `
			SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits); err != nil {
			t.Error(err)
			break
		}
		if waits {
			return claimed
		}
	}
	t.Error("the claim neither ends nor waits")
	return claimed
}

// A process that loses its partition when its attempt is on record, and its handler was not
// called yet, has not died: however often that happens, no message is to blame.
func TestALostPartitionIsNotCountedAgainstTheMessage(t *testing.T) {
	pool := database(t)
	batch := []Message{message(0, "a", 1), message(1, "a", 2), message(2, "b", 1)}
	for generation := 1; generation <= 2*DefaultMaxAttempts; generation += 2 {
		heir := restart(t, pool, record)
		var once sync.Once
		var claimed <-chan Offset
		old := restart(t, traced(t, pool, func() {
			once.Do(func() { claimed = claimMeanwhile(t, pool, heir, generation+1) })
		}), record)
		if _, err := old.Apply(t.Context(), generation, append(batch, message(int64(2+generation), "c", generation))); err != nil {
			t.Error(err)
		}
		if claimed == nil {
			t.Fatal("no attempt was on record")
		}
		<-claimed
		same(t, "attempts that the heir finds", column(t, pool, `SELECT attempts::text FROM inbox_offsets`), "0")
	}
	same(t, "dead letters", deadLetters(t, pool))
	same(t, "effects", effects(t, pool), "a-1", "a-2", "b-1", "c-1", "c-3", "c-5", "c-7", "c-9")
}

// An attempt that the database has ended is taken back before the heir, which waits for the
// partition meanwhile, finds it.
func TestAnAttemptIsTakenBackBeforeTheHeirFindsIt(t *testing.T) {
	pool := database(t)
	for generation := 1; generation <= 2*DefaultMaxAttempts; generation += 2 {
		heir := restart(t, pool, record)
		var claimed <-chan Offset
		old := restart(t, pool, func(ctx context.Context, tx pgx.Tx, _ Message) error {
			claimed = claimMeanwhile(t, pool, heir, generation+1)
			_, err := tx.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'no lock to give' USING ERRCODE = '55P03'; END $$`)
			return err
		})
		if n, err := old.Apply(t.Context(), generation, []Message{message(0, "a", 1)}); n > 0 || err == nil {
			t.Fatal(n, err)
		}
		<-claimed
		same(t, "attempts that the heir finds", column(t, pool, `SELECT attempts::text FROM inbox_offsets`), "0")
	}
	last := restart(t, pool, record)
	if n, err := last.Apply(t.Context(), 2*DefaultMaxAttempts+1, []Message{message(0, "a", 1)}); n != 1 || err != nil {
		t.Error(n, err)
	}
	same(t, "dead letters", deadLetters(t, pool))
	same(t, "effects", effects(t, pool), "a-1")
}

// A process that stands still between the record of its attempt and its transaction loses the
// partition as one that stands still inside of it does.
func TestAProcessThatStandsStillHoldsNoPartition(t *testing.T) {
	pool := database(t)
	heir := restart(t, pool, record)
	claims := 0
	old := restart(t, traced(t, pool, func() {
		for claims++; claims < 10; claims++ {
			_, err := heir.Claim(t.Context(), "events", 0, 2, nil)
			if err == nil {
				return
			}
			if !postgres.Locked(err) {
				t.Error(err)
				return
			}
		}
		t.Error("the partition cannot be claimed")
	}), record)
	if n, err := old.Apply(t.Context(), 1, []Message{message(0, "a", 1)}); n > 0 || err == nil {
		t.Error(n, err)
	}
	if n, err := heir.Apply(t.Context(), 2, []Message{message(0, "a", 1)}); n != 1 || err != nil {
		t.Error(n, err)
	}
	same(t, "dead letters", deadLetters(t, pool))
	same(t, "effects", effects(t, pool), "a-1")
}
