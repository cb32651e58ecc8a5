package broker_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
	"payments/internal/outbox"
)

// small makes a topic with a max.message.bytes below a request of ours: a cluster's own
// default may be.
func small(t *testing.T, addr []string, name string, most int) {
	t.Helper()
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	if _, err := (&kafka.Client{Addr: kafka.TCP(addr...), Transport: transport}).CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: name, NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: fmt.Sprint(most)}},
	}}}); err != nil {
		t.Fatal(err)
	}
}

func kilobyte(topic string, n int) outbox.Message {
	m := message(topic, fmt.Sprint("k", n), 1)
	m.Payload = bytes.Repeat([]byte("x"), 1000)
	return m
}

// A topic whose max.message.bytes is below 900,000 (a cluster's own default may be) takes single events, and a backlog.
func TestABacklogIsTakenByATopicWithASmallMaxMessage(t *testing.T) {
	addr := devtest.Brokers(t)
	c, err := broker.NewClient(addr, broker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	name := devtest.Topic(t)
	small(t, addr, name, 262144)
	if err := c.EnsureTopic(t.Context(), name, 1); err != nil {
		t.Fatal(err)
	}
	warnings, err := c.CheckTopic(t.Context(), name)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "has max.message.bytes=262144") {
		t.Errorf("CheckTopic: %v %v", warnings, err)
	}
	p := broker.NewPublisher(c)
	var backlog []outbox.Message
	for n := range 1000 {
		backlog = append(backlog, kilobyte(name, n))
	}
	if err := p.Publish(t.Context(), backlog[:100]); err != nil {
		t.Fatal("a hundred: ", err)
	}
	if err := p.Publish(t.Context(), backlog); err != nil {
		t.Errorf("a backlog of a thousand events of 1 kB: %v", err)
	}
}

// Nobody has looked at the topic's configuration, or it was made smaller since: batches are
// halved until they are taken. Each event arrives once and in order, and one that no batch
// can hold stops what is behind it.
func TestBatchesAreHalvedUntilTheTopicTakesThem(t *testing.T) {
	for what, test := range map[string]struct {
		publisher func(*testing.T, *broker.Client) outbox.Publisher
		events    int // another number each: logged knows a log by its last event
	}{
		"without fencing": {func(_ *testing.T, c *broker.Client) outbox.Publisher { return broker.NewPublisher(c) }, 100},
		"fenced":          {fence, 110},
	} {
		t.Run(what, func(t *testing.T) {
			addr, prefix := devtest.Brokers(t), devtest.Topic(t)+"."
			c, _ := installation(t, addr, prefix)
			small(t, addr, prefix+events, 20_000)
			if err := c.EnsureTopic(t.Context(), events, 1); err != nil {
				t.Fatal(err)
			}
			var backlog []outbox.Message
			var want []string
			for n := range test.events {
				backlog = append(backlog, kilobyte(events, n))
				want = append(want, backlog[n].ID)
			}
			p := test.publisher(t, c)
			publish(t, p, backlog[:60]...)
			publish(t, p, backlog[60:]...)
			large := message(events, "large", 1)
			large.Payload = make([]byte, 30_000)
			if err := p.Publish(t.Context(), []outbox.Message{kilobyte(events, 1000), large, kilobyte(events, 1001)}); err == nil {
				t.Error("an event was taken that is larger than the topic takes")
			}
			// The first of the three is taken, and nothing behind the one that is not.
			if got := logged(t, c); !slices.Equal(got, append(want, "k1000-1")) {
				t.Errorf("the log holds %d events, %v; want %d", len(got), got, len(want)+1)
			}
		})
	}
}
