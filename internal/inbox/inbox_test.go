package inbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/postgres"
)

// apply takes in what comes, in parts that are in the order of a log.
func apply(t *testing.T, in *Inbox, batch ...Message) {
	t.Helper()
	for len(batch) > 0 {
		n := 1
		for n < len(batch) && batch[n].Offset > batch[n-1].Offset {
			n++
		}
		if taken, err := in.Apply(t.Context(), 1, batch[:n]); err != nil || taken != n {
			t.Fatalf("Apply: %d of %d: %v", taken, n, err)
		}
		batch = batch[n:]
	}
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAMessageIsAppliedOnceWhateverIsRedelivered(t *testing.T) {
	pool := database(t)
	in, reg := open(t, pool, record)
	first, second := message(1, "a", 1), message(2, "b", 1)
	again := message(9, "a", 1) // the relay published it twice: another offset, one id
	apply(t, in, first, second, first)
	apply(t, in, first, second, again)
	apply(t, in)
	same(t, "effects", effects(t, pool), "a-1", "b-1")
	same(t, "dead letters", deadLetters(t, pool))
	for result, want := range map[string]float64{"applied": 2, "duplicate": 4, "dead_letter": 0} {
		if got := metric(t, reg, "payments_inbox_applied_total", result); got != want {
			t.Errorf("%s = %v, want %v", result, got, want)
		}
	}
}

func TestConsumersDeduplicateApart(t *testing.T) {
	pool := database(t)
	reg := prometheus.NewRegistry()
	for _, consumer := range []string{"one", "two"} {
		in, err := New(pool, consumer, each(record), Config{Log: slog.New(slog.DiscardHandler), Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		apply(t, in, message(1, "a", 1))
	}
	same(t, "effects", effects(t, pool), "a-1", "a-1")
}

type one = func(ctx context.Context, tx pgx.Tx, m Message) error

func TestWhatCannotBeAppliedBlocksItsKeyAndOthersFlow(t *testing.T) {
	insert := func(values string) one {
		return func(ctx context.Context, tx pgx.Tx, _ Message) error {
			_, err := tx.Exec(ctx, `INSERT INTO effects (id, positive) VALUES (`+values+`)`)
			return err
		}
	}
	causes := map[string]struct {
		id    string
		cause one
	}{
		"permanent error": {"a-2", func(context.Context, pgx.Tx, Message) error {
			return fmt.Errorf("wrapped: %w", Permanent(errors.New("never\x00 \xff")))
		}},
		"panic":                   {"a-2", func(context.Context, pgx.Tx, Message) error { panic("at the disco") }},
		"data exception":          {"a-2", insert(`'x', 1/0`)},
		"refused by a constraint": {"a-2", insert(`'x', -1`)},
		"no id":                   {"", record},
		"an id Postgres refuses":  {"a\x002", record},
		"an id no index can hold": {string(bytes.Repeat([]byte("abcdefg"), 2000)), record},
		"an id that is not text":  {"a\xff2", record},
		"effect, then an error": {"a-2", func(ctx context.Context, tx pgx.Tx, m Message) error {
			return Permanent(errors.Join(record(ctx, tx, m), errors.New("late")))
		}},
		"a transaction left broken": {"a-2", func(ctx context.Context, tx pgx.Tx, _ Message) error {
			_, _ = tx.Exec(ctx, `SELECT 1/0`)
			return Permanent(errors.New("hidden"))
		}},
	}
	for name, c := range causes {
		t.Run(name, func(t *testing.T) {
			pool := database(t)
			in, reg := open(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
				if m.Headers[HeaderID] == c.id {
					return c.cause(ctx, tx, m)
				}
				return record(ctx, tx, m)
			})
			bad := message(3, "a", 2)
			bad.Headers[HeaderID] = c.id
			batch := []Message{message(1, "a", 1), message(2, "b", 1), bad, message(4, "a", 3), message(5, "b", 2)}
			later := message(6, "a", 4)
			for range 2 { // the second round is a replay from the beginning: nothing changes
				apply(t, in, batch...)
				apply(t, in, later, message(7, "b", 3))
				same(t, "effects", effects(t, pool), "a-1", "b-1", "b-2", "b-3")
				same(t, "dead letters", deadLetters(t, pool), clean(c.id), "a-3", "a-4")
			}
			if got := metric(t, reg, "payments_inbox_applied_total", "dead_letter"); got != 3 {
				t.Errorf("dead letters = %v, want 3", got)
			}
			for _, consumer := range []*Inbox{in, restart(t, pool, record)} {
				if err := consumer.Measure(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := testutil.ToFloat64(consumer.metrics.keys.WithLabelValues()); got != 1 {
					t.Errorf("blocked keys = %v, want 1", got)
				}
			}
		})
	}
}

func TestAnUnreachableDatabaseCostsNoAttempt(t *testing.T) {
	pool := database(t)
	away := true
	in, reg := open(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		switch id := m.Headers[HeaderID]; {
		case id == "p-1":
			return Permanent(errors.New("never"))
		case id == "b-1" && away:
			return &pgconn.PgError{Code: "57P01", Message: "shutting down"}
		}
		return record(ctx, tx, m)
	}, func(c *Config) { c.MaxAttempts = 1 })
	batch := []Message{message(1, "p", 1), message(2, "a", 1), message(3, "b", 1)}
	for range 3 {
		if n, err := in.Apply(t.Context(), 1, batch); n != 0 || !postgres.Unavailable(err) {
			t.Fatalf("Apply = %d, %v, want the handler's error", n, err)
		}
	}
	same(t, "effects", effects(t, pool))
	same(t, "dead letters", deadLetters(t, pool))
	same(t, "seen", column(t, pool, `SELECT message_id FROM inbox_messages`))
	if got := metric(t, reg, "payments_inbox_applied_total", "applied"); got != 0 {
		t.Errorf("applied = %v, want 0", got)
	}
	away = false
	apply(t, in, batch...)
	same(t, "effects", effects(t, pool), "a-1", "b-1")
	same(t, "dead letters", deadLetters(t, pool), "p-1")
}

func TestAFailingMessageIsTriedAgainThenADeadLetterAndOthersFlow(t *testing.T) {
	pool := database(t)
	odd := errors.New("not today")
	tries := 0
	in, _ := open(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		if m.Headers[HeaderID] == "b-1" {
			tries++
			return odd
		}
		return record(ctx, tx, m)
	}, func(c *Config) { c.MaxAttempts = 3 })
	batch := []Message{message(1, "a", 1), message(2, "b", 1), message(3, "c", 1), message(4, "b", 2), message(5, "c", 2)}
	n, err := in.Apply(t.Context(), 1, batch)
	if n != 1 || !errors.Is(err, odd) {
		t.Fatalf("first attempt: %d, %v, want what is before the message and its error", n, err)
	}
	same(t, "effects", effects(t, pool), "a-1")
	same(t, "dead letters", deadLetters(t, pool))
	if n, err := in.Apply(t.Context(), 1, batch[1:]); n != 0 || !errors.Is(err, odd) {
		t.Fatalf("second attempt: %d, %v", n, err)
	}
	tried := tries
	apply(t, in, batch[1:]...)
	same(t, "effects", effects(t, pool), "a-1", "c-1", "c-2")
	same(t, "dead letters", deadLetters(t, pool), "b-1", "b-2")
	same(t, "reasons", column(t, pool, `SELECT reason FROM inbox_parked ORDER BY "offset"`), odd.Error(), errBehind.Error())
	if tries != tried+1 {
		t.Errorf("%d tries in the last attempt, want one", tries-tried)
	}
}

func TestAMessageThatAlwaysTakesTooLongIsADeadLetter(t *testing.T) {
	pool := database(t)
	in, _ := open(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		if m.Headers[HeaderID] != "b-1" {
			return record(ctx, tx, m)
		}
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 20`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT pg_sleep(10)`)
		return err
	}, func(c *Config) { c.MaxAttempts = 2 })
	batch := []Message{message(1, "a", 1), message(2, "b", 1), message(3, "c", 1)}
	n, err := in.Apply(t.Context(), 1, batch)
	if n != 1 || !postgres.TimedOut(err) {
		t.Fatalf("first attempt: %d, %v", n, err)
	}
	apply(t, in, batch[1:]...)
	same(t, "effects", effects(t, pool), "a-1", "c-1")
	same(t, "dead letters", deadLetters(t, pool), "b-1")
}

func TestForeignBytesAreKeptAsTheyCame(t *testing.T) {
	pool := database(t)
	in, _ := open(t, pool, record)
	long := make([]byte, 20_000)
	for i := range long {
		long[i] = byte(i * i >> 3)
	}
	apply(t, in,
		Message{Topic: "events", Offset: 1},
		Message{Topic: "events", Offset: 2, Key: long, Value: []byte{0, 0xff}, Headers: map[string]string{"\x00\xff": "\x00\xff"}},
		Message{Topic: "events", Offset: 3, Key: long, Headers: map[string]string{HeaderID: "good"}},
		Message{Topic: "events", Offset: 4, Key: []byte("other"), Headers: map[string]string{HeaderID: "other-1"}},
	)
	same(t, "dead letters", deadLetters(t, pool), "", "", "good")
	same(t, "effects", effects(t, pool), "other-1")
	var key, value []byte
	if err := pool.QueryRow(t.Context(), `
		SELECT k.key, p.value FROM inbox_parked p JOIN inbox_parked_keys k ON k.id = p.parked_key WHERE p."offset" = 2`).Scan(&key, &value); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key, long) || !bytes.Equal(value, []byte{0, 0xff}) {
		t.Error("key or value differ from what came")
	}
}

func TestADatabaseThatIsAwayIsAnErrorOfApplyOnly(t *testing.T) {
	pool, err := postgres.Open(t.Context(), "postgres://app@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	in, _ := open(t, pool, record)
	if _, err := in.Apply(t.Context(), 1, []Message{message(1, "a", 1)}); !postgres.Unavailable(err) {
		t.Errorf("Apply = %v, want one that says the database is away", err)
	}
}

func TestNewRefusesWhatIsMissing(t *testing.T) {
	if _, err := New(nil, "", nil, Config{}); err == nil {
		t.Error("New took nothing for an inbox")
	}
}

func TestABatchIsOfOnePartitionInOrder(t *testing.T) {
	pool := database(t)
	in, _ := open(t, pool, record)
	elsewhere := message(2, "a", 2)
	elsewhere.Partition = 1
	for _, batch := range [][]Message{{message(2, "a", 2), message(1, "a", 1)}, {message(1, "a", 1), elsewhere}} {
		if n, err := in.Apply(t.Context(), 1, batch); n != 0 || err == nil {
			t.Errorf("Apply took %d of what no log delivers (%v)", n, err)
		}
	}
}
