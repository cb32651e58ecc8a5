package audit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/outbox"
	"payments/internal/payment"
	"payments/internal/postgres"
)

const logPartitions = 3

func anEvent(key string, sequence int64) outbox.Message {
	id := fmt.Sprintf("evt_%s_%d", key, sequence)
	return outbox.Message{
		MerchantID: merchant, ID: id, Topic: payment.Topic, Key: key, Sequence: sequence, Payload: []byte("{}"),
		Headers: []outbox.Header{{Key: "ce_id", Value: id}, {Key: "ce_sequence", Value: strconv.FormatInt(sequence, 10)}},
	}
}

func TestTheLogIsCompared(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	client, err := broker.NewClient(devtest.Brokers(t), broker.Config{Prefix: devtest.Topic(t) + "."})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.EnsureTopic(t.Context(), payment.Topic, logPartitions); err != nil {
		t.Fatal(err)
	}
	publisher := broker.NewPublisher(client)
	publish := func(msgs ...outbox.Message) {
		t.Helper()
		if err := publisher.Publish(t.Context(), msgs); err != nil {
			t.Fatal(err)
		}
	}
	var all []outbox.Message
	for _, key := range []string{"right", "lost", "replaced", "swapped"} {
		for n := range int64(3) {
			all = append(all, anEvent(key, n+1))
		}
	}
	commit(t, pool, all...)
	if _, err := pool.Exec(t.Context(), `INSERT INTO outbox_checkpoints (shard, epoch, done) SELECT shard, 1, pg_current_snapshot() FROM outbox_shards`); err != nil {
		t.Fatal(err)
	}
	commit(t, pool, anEvent("later", 1)) // which does not count as published yet
	event := func(key string, n int) outbox.Message {
		return all[slices.IndexFunc(all, func(m outbox.Message) bool { return m.Key == key && m.Sequence == int64(n) })]
	}
	for _, m := range all {
		if m.Key == "right" {
			publish(m, m) // at least once
		}
	}
	publish(event("lost", 1), event("lost", 3))
	another := event("replaced", 2)
	another.Headers = []outbox.Header{{Key: "ce_id", Value: "evt_another"}, {Key: "ce_sequence", Value: "2"}}
	publish(event("replaced", 1), another, event("replaced", 3))
	publish(event("swapped", 2))
	publish(event("swapped", 1))
	publish(event("swapped", 3))
	a := Audit{Write: pool, Log: client, Dir: t.TempDir()}
	findings, err := a.compareLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := findings[0]
	found := strings.Join(f.Violations, "\n")
	for _, want := range []string{"event evt_lost_2 counts as published and is not in the log", "has event evt_another in the place of evt_replaced_2", "evt_replaced_2 counts as published and is not", "event evt_swapped_2 was delivered before"} {
		if !strings.Contains(found, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if f.Counted != int64(len(all)) || len(f.Violations) != 4 || strings.Contains(found, "right") || strings.Contains(found, "later") {
		t.Errorf("%d checked: %s", f.Counted, found)
	}
}

// commit appends the events as a transaction of the service does.
func commit(t *testing.T, pool *pgxpool.Pool, msgs ...outbox.Message) {
	t.Helper()
	if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error { return outbox.Append(t.Context(), tx, msgs...) }); err != nil {
		t.Fatal(err)
	}
}

// memoryLog is a log with any past: it was cut by retention, or got partitions later.
type memoryLog struct {
	first   map[int]int64
	records map[int][]inbox.Message
}

func (l memoryLog) Spans(context.Context, string) (map[int][2]int64, error) {
	spans := map[int][2]int64{}
	for n, first := range l.first {
		spans[n] = [2]int64{first, first + int64(len(l.records[n]))}
	}
	return spans, nil
}

func (l memoryLog) Read(_ context.Context, _ string, n int, offset int64) ([]inbox.Message, error) {
	return l.records[n][offset-l.first[n]:], nil
}

// Partition is 0 while there is one, and the last one then.
func (l memoryLog) Partition(_ string, partitions int) int { return partitions - 1 }

func TestWhatRetentionDeletedIsExcused(t *testing.T) {
	noon := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	record := func(n int, offset int64, key string, sequence int64, at time.Time) inbox.Message {
		e := anEvent(key, sequence)
		return inbox.Message{Partition: n, Offset: offset, Key: []byte(key), Time: at, Headers: map[string]string{"ce_id": e.ID, "ce_sequence": strconv.FormatInt(sequence, 10)}}
	}
	published := func(key string, sequence int64, at time.Time) (string, found) {
		return eventKey(key, sequence), found{ID: anEvent(key, sequence).ID, Published: true, At: at}
	}
	for name, c := range map[string]struct {
		log  memoryLog
		sent []func() (string, found)
		want string
	}{
		"deleted": {
			memoryLog{map[int]int64{0: 5}, map[int][]inbox.Message{0: {record(0, 5, "a", 2, noon)}}},
			[]func() (string, found){func() (string, found) { return published("a", 1, noon.Add(-time.Hour)) }, func() (string, found) { return published("a", 2, noon) }}, "",
		},
		"all of it is deleted": {
			memoryLog{map[int]int64{0: 5}, map[int][]inbox.Message{}},
			[]func() (string, found){func() (string, found) { return published("a", 1, noon) }}, "",
		},
		"nothing was deleted": {
			memoryLog{map[int]int64{0: 0}, map[int][]inbox.Message{0: {record(0, 0, "a", 2, noon)}}},
			[]func() (string, found){func() (string, found) { return published("a", 1, noon.Add(-time.Hour)) }}, "evt_a_1 counts as published",
		},
		"made after what is left": {
			memoryLog{map[int]int64{0: 5}, map[int][]inbox.Message{0: {record(0, 5, "b", 1, noon)}}},
			[]func() (string, found){func() (string, found) { return published("a", 1, noon.Add(time.Hour)) }}, "evt_a_1 counts as published",
		},
		"an older one of its key is left": {
			memoryLog{map[int]int64{0: 5}, map[int][]inbox.Message{0: {record(0, 5, "a", 1, noon)}}},
			[]func() (string, found){func() (string, found) { return published("a", 1, noon.Add(-time.Hour)) }, func() (string, found) { return published("a", 2, noon.Add(-time.Hour)) }}, "evt_a_2 counts as published",
		},
		"published before a partition was added": {
			memoryLog{map[int]int64{0: 0, 1: 0}, map[int][]inbox.Message{0: {record(0, 0, "a", 1, noon)}, 1: {record(1, 0, "b", 1, noon.Add(time.Hour))}}}, nil, "",
		},
		"in another partition": {
			memoryLog{map[int]int64{0: 0, 1: 0}, map[int][]inbox.Message{0: {record(0, 0, "a", 1, noon)}, 1: {record(1, 0, "b", 1, noon.Add(-time.Hour))}}}, nil, "evt_a_1 is in partition 0, and its key belongs to 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpool(t.TempDir())
			for _, e := range c.sent {
				key, v := e()
				if err := keep(s, key, v); err != nil {
					t.Fatal(err)
				}
			}
			f := Finding{}
			a := Audit{Log: c.log}
			if err := a.mergeLog(t.Context(), s, &f); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(f.Violations, "; "); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
