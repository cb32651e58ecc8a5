package inbox

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/postgres"
)

func partitions(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	return column(t, pool, `
		SELECT m.message_id || ' ' || m.tableoid::regclass FROM inbox_messages m ORDER BY m.made_on, m.message_id`)
}

func TestAnIdLiesInThePartitionOfItsDay(t *testing.T) {
	for id, want := range map[string]string{
		"evt_01jq0c8v8pf3n8t3m5x9z4k2q7":       "2025-03-23",
		"01jq0c8v8pf3n8t3m5x9z4k2q7":           "2025-03-23",
		"two_words_01jq0c8v8pf3n8t3m5x9z4k2q7": "2025-03-23",
		"0195c0c4-6d16-7234-8000-000000000001": "2025-03-23",
		"evt_00000000000e000000000000000":      "0001-01-01",
		"evt_0000000000e000000000000000":       "1970-01-01",
		"evt_7zzzzzzzzzfzzzzzzzzzzzzzzz":       "10889-08-02",
		"evt_01jq0c8v8pd3n8t3m5x9z4k2q7":       "0001-01-01", // version 6
		"evt_81jq0c8v8pf3n8t3m5x9z4k2q7":       "0001-01-01", // more than 128 bits
		"evt_01jq0c8v8pf3n8t3m5x9z4k2qu":       "0001-01-01", // no such digit
		"0195c0c4-6d16-4234-8000-000000000001": "0001-01-01", // version 4
		"0195c0c4-6d16-7234-8000-00000000000g": "0001-01-01",
		"0195c0c4-6d16-7234-8000--0000000000a": "0001-01-01",
		"a-1":                                  "0001-01-01", "": "0001-01-01",
	} {
		if got := madeOn(id).Format(time.DateOnly); got != want {
			t.Errorf("%q was made on %s, want %s", id, got, want)
		}
	}
	pool := database(t)
	now := time.Now().UTC()
	in := restart(t, pool, record)
	today, far := dated(2, now, "b", 1), dated(3, now.AddDate(0, 0, 40), "c", 1)
	for range 2 {
		apply(t, in, message(1, "a", 1), today, far)
	}
	if got := effects(t, pool); len(got) != 3 {
		t.Errorf("effects %v", got)
	}
	day := "inbox_messages_" + now.Format("20060102")
	same(t, "partitions", partitions(t, pool), "a-1 inbox_messages_undated",
		today.Headers[HeaderID]+" "+day, far.Headers[HeaderID]+" inbox_messages_default")

	// When the day of what lies in the default partition comes near, it moves.
	future := now.AddDate(0, 0, 39)
	for range 2 {
		if err := Maintain(t.Context(), pool, future, 0); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "partitions", partitions(t, pool), "a-1 inbox_messages_undated",
		today.Headers[HeaderID]+" "+day, far.Headers[HeaderID]+" inbox_messages_"+now.AddDate(0, 0, 40).Format("20060102"))
	apply(t, in, far)
	if got := effects(t, pool); len(got) != 3 {
		t.Errorf("effects after the move %v", got)
	}
}

func TestOldDaysAreDroppedAsPartitions(t *testing.T) {
	pool := database(t)
	now := time.Now().UTC()
	old := now.AddDate(0, 0, -10)
	if err := Maintain(t.Context(), pool, old, 0); err != nil {
		t.Fatal(err)
	}
	in := restart(t, pool, recordNext, func(c *Config) { c.Sequenced = true })
	first, last := dated(1, old, "a", 1), dated(2, now, "a", 2)
	apply(t, in, first, last)
	if err := Maintain(t.Context(), pool, now, 5*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	same(t, "ids", column(t, pool, `SELECT message_id FROM inbox_messages`), last.Headers[HeaderID])
	same(t, "old partitions", column(t, pool, `
		SELECT relname::text FROM pg_class WHERE relname < 'inbox_messages_`+now.AddDate(0, 0, -5).Format("20060102")+`'
			AND relname ~ '^inbox_messages_\d+$'`))
	apply(t, in, first, last)
	if got := effects(t, pool); len(got) != 2 {
		t.Errorf("effects %v", got)
	}
	// What is forgotten is not made again, and days that are not over cannot be forgotten.
	if err := Maintain(t.Context(), pool, old, 0); err != nil {
		t.Error(err)
	}
	same(t, "ids", column(t, pool, `SELECT message_id FROM inbox_messages`), last.Headers[HeaderID])
	if err := Maintain(t.Context(), pool, now.AddDate(0, 0, 10), 24*time.Hour); err == nil || postgres.Unavailable(err) {
		t.Errorf("tomorrow was forgotten (%v)", err)
	}
}

// Maintenance waits for a batch under way no longer than 200 ms, and the batch
// does not wait for it: the ids it has read of stay until it has committed.
func TestMaintenanceGivesWay(t *testing.T) {
	pool := database(t)
	now := time.Now().UTC()
	entered, release := make(chan struct{}), make(chan struct{})
	in := restart(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		close(entered)
		<-release
		return record(ctx, tx, m)
	})
	far := dated(1, now.AddDate(0, 0, ahead+1), "a", 1)
	done := make(chan error, 1)
	go func() {
		_, err := in.Apply(t.Context(), 1, []Message{far})
		done <- err
	}()
	<-entered
	if err := Maintain(t.Context(), pool, now, 24*time.Hour); !postgres.Unavailable(err) {
		t.Errorf("days were dropped beside a batch: %v", err)
	}
	if err := Maintain(t.Context(), pool, now.AddDate(0, 0, 1), 0); !postgres.Unavailable(err) {
		t.Errorf("the day of an id that is being written was made: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// From the moment in which a transaction has read which days are kept.
	if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := lockKept(t.Context(), tx); err != nil {
			return err
		}
		if err := Maintain(t.Context(), pool, now, 24*time.Hour); !postgres.Unavailable(err) {
			t.Errorf("days were dropped after a batch had read which are kept: %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := Maintain(t.Context(), pool, now.AddDate(0, 0, 1), 0); err != nil {
		t.Error(err)
	}
	same(t, "partitions", partitions(t, pool), far.Headers[HeaderID]+" inbox_messages_"+now.AddDate(0, 0, ahead+1).Format("20060102"))
}
