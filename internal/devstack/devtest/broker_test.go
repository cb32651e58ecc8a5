package devtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"
)

func produce(t *testing.T, addr, topic string, values ...string) {
	t.Helper()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	w := &kafka.Writer{
		Addr: kafka.TCP(addr), Topic: topic, RequiredAcks: kafka.RequireAll, AllowAutoTopicCreation: true,
		BatchTimeout: time.Millisecond, MaxAttempts: 100, Transport: transport, Balancer: &kafka.Hash{},
	}
	deadline := time.Now().Add(30 * time.Second)
	for _, v := range values {
		err := w.WriteMessages(t.Context(), kafka.Message{Key: []byte("k"), Value: []byte(v)})
		// A real Kafka makes the topic after it has answered that there is none.
		for errors.Is(err, kafka.UnknownTopicOrPartition) && time.Now().Before(deadline) {
			err = w.WriteMessages(t.Context(), kafka.Message{Key: []byte("k"), Value: []byte(v)})
		}
		if err != nil {
			t.Fatalf("produce %s: %v", v, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// consume reads n messages as a member of the group and commits all but the last.
func consume(t *testing.T, addr, topic, group string, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dialer := &kafka.Dialer{Timeout: 5 * time.Second}
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{addr}, Topic: topic, GroupID: group, StartOffset: kafka.FirstOffset,
		MaxWait: 100 * time.Millisecond, Dialer: dialer,
	})
	var got []string
	for i := range n {
		m, err := r.FetchMessage(ctx)
		if err != nil {
			t.Fatalf("message %d of %d: %v", i+1, n, err)
		}
		got = append(got, string(m.Value))
		if i < n-1 {
			if err := r.CommitMessages(ctx, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return got
}

func TestBrokersTakeAndGiveMessages(t *testing.T) {
	addr, topic := Brokers(t)[0], Topic(t)
	produce(t, addr, topic, "1", "2", "3")
	if got := consume(t, addr, topic, topic+".group", 3); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("consumed %v", got)
	}
}

// After an outage the log is there and the group goes on behind its last commit.
func TestARestartedBrokerGoesOn(t *testing.T) {
	b := RestartableBroker(t)
	addr, topic := b.Addr(), Topic(t)
	produce(t, addr, topic, "1", "2", "3")
	if got := consume(t, addr, topic, topic+".group", 3); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Fatalf("consumed %v", got)
	}
	open, err := kafka.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	b.Stop()
	if err := open.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Brokers(); err == nil {
		t.Error("a connection outlived the stop")
	}
	if c, err := kafka.DialContext(t.Context(), "tcp", addr); err == nil {
		c.Close()
		t.Error("a stopped broker takes connections")
	}
	b.Start()
	if b.Addr() != addr {
		t.Errorf("the address moved from %s to %s", addr, b.Addr())
	}
	produce(t, addr, topic, "4")
	if got := consume(t, addr, topic, topic+".group", 2); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("after the restart the group got %v, want the uncommitted 3 and the new 4", got)
	}
}

func TestDatabasesAreApart(t *testing.T) {
	for n := range 2 {
		db := Database(t)
		owner, err := pgx.Connect(t.Context(), db.OwnerURL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { owner.Close(context.WithoutCancel(t.Context())) })
		if _, err := owner.Exec(t.Context(), "CREATE TABLE mine (v text)"); err != nil {
			t.Errorf("database %d: %v", n, err)
		}
		app, err := pgx.Connect(t.Context(), db.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { app.Close(context.WithoutCancel(t.Context())) })
		if _, err := app.Exec(t.Context(), fmt.Sprintf("CREATE TABLE other%d ()", n)); err == nil {
			t.Error("the service's role can make a table")
		}
	}
}

func TestWhoAsksForABrokerIsListed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	t.Setenv(listVariable, path)
	t.Run("part", func(t *testing.T) { Brokers(t) })
	RestartableBroker(t)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	line := dir + " TestWhoAsksForABrokerIsListed\n"
	if string(got) != line+line {
		t.Errorf("%q, want %q twice", got, line)
	}
}
