package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"payments/internal/broker"
	"payments/internal/inbox"
	"payments/internal/outbox"
)

func TestWhatIsPublishedIsConsumedInSequence(t *testing.T) {
	const keys, each = 20, 40
	c, _ := client(t)
	name := topic(t, c, 4)
	p := broker.NewPublisher(c)
	m := (&member{t: t}).start(c, name, name, 50)
	var batch []outbox.Message
	for n := range each {
		for k := range keys {
			batch = append(batch, message(name, fmt.Sprint("k", k), n+1))
		}
		if n%7 == 0 {
			publish(t, p, batch...)
			batch = nil
		}
	}
	publish(t, p, batch...)
	m.has(keys * each)
	m.stop()
	if len(m.got) != keys*each {
		t.Errorf("%d messages came, want %d", len(m.got), keys*each)
	}
	inSequence(t, m.got, each)
	partitions := map[string]int{}
	for _, g := range m.got {
		if was, ok := partitions[string(g.Key)]; ok && was != g.Partition {
			t.Errorf("key %s is in partitions %d and %d", g.Key, was, g.Partition)
		}
		partitions[string(g.Key)] = g.Partition
	}
	first := m.got[0]
	want := inbox.Message{
		Topic: name, Partition: first.Partition, Time: first.Time, Key: first.Key, Value: fmt.Appendf(nil, "%s 1", first.Key),
		Headers: map[string]string{"ce_id": string(first.Key) + "-1", "empty": ""},
	}
	if diff := cmp.Diff(want, first); diff != "" || first.Time.IsZero() {
		t.Error(diff)
	}
}

// The hashes are those of UtilsTest in Apache Kafka.
func TestAKeyGoesWhereTheJavaClientSendsIt(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 12)
	m := (&member{t: t}).start(c, name, name, 0)
	hashes := map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
	}
	for key := range hashes {
		publish(t, broker.NewPublisher(c), message(name, key, 1))
	}
	m.has(len(hashes))
	m.stop()
	for _, g := range m.got {
		if want := int(hashes[string(g.Key)]&0x7fffffff) % 12; g.Partition != want {
			t.Errorf("key %s is in partition %d, want %d", g.Key, g.Partition, want)
		}
	}
}

func TestMoreThanARequestHolds(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 1)
	m := (&member{t: t}).start(c, name, name, 0)
	var batch []outbox.Message
	for n := range 40 {
		b := message(name, "k", n+1)
		b.Payload = append(b.Payload, bytes.Repeat([]byte("."), 64<<10)...)
		b.Payload = bytes.Replace(b.Payload, []byte("."), []byte(" "), 1)
		batch = append(batch, b)
	}
	publish(t, broker.NewPublisher(c), batch...)
	m.has(40)
	inSequence(t, m.got, 40)
}

func TestAPartitionStopsAtItsFirstError(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 12)
	m := (&member{t: t}).start(c, name, name, 0)
	refused := message(name, "21", 2)
	refused.Payload = bytes.Repeat([]byte("x"), 4<<20)
	err := broker.NewPublisher(c).Publish(t.Context(), []outbox.Message{
		message(name, "21", 1), refused, message(name, "21", 3), message(name, "foobar", 1),
	})
	if err == nil || !strings.Contains(err.Error(), name) {
		t.Fatalf("Publish = %v, want an error that names the topic", err)
	}
	m.has(2)
	publish(t, broker.NewPublisher(c), message(name, "21", 2))
	m.has(3)
	m.stop()
	inSequence(t, m.got[:1], 1)
	for _, id := range m.ids() {
		if id == "21-3" {
			t.Error("a message was sent after the one that was refused")
		}
	}
}

func TestPublishEndsWithItsContextWhenTheBrokerIsSilent(t *testing.T) {
	c, w := client(t)
	name := topic(t, c, 1)
	p := broker.NewPublisher(c)
	publish(t, p, message(name, "k", 1))
	w.silence()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := p.Publish(ctx, []outbox.Message{message(name, "k", 2)}); err == nil {
		t.Error("Publish = nil from a broker that answers nothing")
	}
	if err := c.Ping(ctx); err == nil {
		t.Error("Ping = nil from a broker that answers nothing")
	}
}

func TestPublishToAnUnknownTopic(t *testing.T) {
	c, _ := client(t)
	if err := broker.NewPublisher(c).Publish(t.Context(), []outbox.Message{message("nowhere", "k", 1)}); err == nil {
		t.Error("Publish = nil for a topic that is not there")
	}
}

func TestEnsureTopic(t *testing.T) {
	c, w := client(t)
	name := topic(t, c, 3)
	other, _ := another(t, w.brokers) // whose metadata may be old
	for _, c := range []*broker.Client{c, other} {
		if err := c.EnsureTopic(t.Context(), name, 3); err != nil {
			t.Error(err)
		}
		err := c.EnsureTopic(t.Context(), name, 4)
		if err == nil || !strings.Contains(err.Error(), "has 3 partitions and 4 are wanted") {
			t.Errorf("EnsureTopic with more partitions = %v", err)
		}
	}
	if err := c.EnsureTopic(t.Context(), "", 0); err == nil {
		t.Error("EnsureTopic made a topic of nothing")
	}
}

func TestNewClientNamesTheWrongBroker(t *testing.T) {
	for _, brokers := range [][]string{nil, {"127.0.0.1:9092", "kafka"}, {":9092"}} {
		if _, err := broker.NewClient(brokers, broker.Config{}); err == nil {
			t.Errorf("NewClient took %q", brokers)
		}
	}
	if _, err := broker.NewClient([]string{"a:1"}, broker.Config{ReplicationFactor: -1}); err == nil {
		t.Error("NewClient took a negative replication factor")
	}
}
