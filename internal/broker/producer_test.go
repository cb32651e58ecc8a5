package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
	"payments/internal/outbox"
)

// events is the topic of an installation of its own.
const events = "events"

func fencing(t *testing.T, partitions int) (*broker.Client, *wire) {
	t.Helper()
	leaks(t)
	c, w := installation(t, devtest.Brokers(t), devtest.Topic(t)+".")
	if err := c.EnsureTopic(t.Context(), events, partitions); err != nil {
		t.Fatal(err)
	}
	return c, w
}

func fence(t *testing.T, c *broker.Client) outbox.Publisher {
	t.Helper()
	p, err := broker.NewFencer(c).Fence(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// logged are the ids of all that the topic holds. A last message tells that it is all.
func logged(t *testing.T, c *broker.Client) []string {
	t.Helper()
	publish(t, broker.NewPublisher(c), message(events, "end", 1))
	m := (&member{t: t}).start(c, events, "logged", 0)
	defer m.stop()
	await(t, "the end of the log", func() bool { return slices.Contains(m.ids(), "end-1") })
	return slices.DeleteFunc(m.ids(), func(id string) bool { return id == "end-1" })
}

// The request of an owner that stands still is on its way while another takes the
// shard over and goes further: then it arrives.
func TestAZombiesLateRequest(t *testing.T) {
	plain := func(_ *testing.T, c *broker.Client) outbox.Publisher { return broker.NewPublisher(c) }
	for what, test := range map[string]struct {
		owner func(*testing.T, *broker.Client) outbox.Publisher
		want  []string
	}{
		"is the last word without a fence": {plain, []string{"k-1", "k-2", "k-3", "k-2"}},
		"is refused by the fence":          {fence, []string{"k-1", "k-2", "k-3"}},
	} {
		t.Run(what, func(t *testing.T) {
			leaks(t)
			brokers, prefix := devtest.Brokers(t), devtest.Topic(t)+"."
			old, w := installation(t, brokers, prefix)
			young, _ := installation(t, brokers, prefix)
			if err := old.EnsureTopic(t.Context(), events, 1); err != nil {
				t.Fatal(err)
			}
			zombie := test.owner(t, old)
			publish(t, zombie, message(events, "k", 1))
			release := w.hold()
			late := make(chan error, 1)
			go func() { late <- zombie.Publish(t.Context(), []outbox.Message{message(events, "k", 2)}) }()
			publish(t, test.owner(t, young), message(events, "k", 2), message(events, "k", 3))
			release()
			err := <-late
			if fenced := len(test.want) == 3; errors.Is(err, kafka.InvalidProducerEpoch) != fenced || !fenced && err != nil {
				t.Errorf("the zombie is told %v", err)
			}
			if got := logged(t, young); !slices.Equal(got, test.want) {
				t.Errorf("the log holds %v, want %v", got, test.want)
			}
		})
	}
}

func TestARequestWhoseAnswerIsLost(t *testing.T) {
	c, w := fencing(t, 1)
	plain, p := broker.NewPublisher(c), fence(t, c)
	publish(t, plain, message(events, "plain", 1))
	publish(t, p, message(events, "fenced", 1))
	w.loseAnswer()
	if err := plain.Publish(t.Context(), []outbox.Message{message(events, "plain", 2)}); err == nil {
		t.Error("no answer was lost")
	}
	publish(t, plain, message(events, "plain", 2))
	w.loseAnswer()
	publish(t, p, message(events, "fenced", 2), message(events, "fenced", 3))
	if w.loses() {
		t.Error("no answer was lost")
	}
	publish(t, p, message(events, "fenced", 4))
	want := []string{"plain-1", "fenced-1", "plain-2", "plain-2", "fenced-2", "fenced-3", "fenced-4"}
	if got := logged(t, c); !slices.Equal(got, want) {
		t.Errorf("the log holds %v, want %v", got, want)
	}
}

// What is sent behind a request that has failed is refused: its numbers were given.
func TestNothingIsSentBehindAFailedRequest(t *testing.T) {
	c, _ := fencing(t, 1)
	p := fence(t, c)
	publish(t, p, message(events, "k", 1))
	large := message(events, "k", 2)
	large.Payload = make([]byte, 4<<20)
	if err := p.Publish(t.Context(), []outbox.Message{large}); err == nil {
		t.Error("a message of 4 MiB was taken")
	}
	if err := p.Publish(t.Context(), []outbox.Message{message(events, "k", 3)}); !errors.Is(err, kafka.OutOfOrderSequenceNumber) {
		t.Errorf("what is behind it is told %v", err)
	}
	publish(t, fence(t, c), message(events, "k", 2))
	if got := logged(t, c); !slices.Equal(got, []string{"k-1", "k-2"}) {
		t.Errorf("the log holds %v", got)
	}
}

// It arrived, and nobody knows: the broker must not take what comes next for its repetition.
func TestWhatFollowsARequestInDoubtIsAppended(t *testing.T) {
	c, w := fencing(t, 1)
	reader, _ := installation(t, w.brokers, w.prefix)
	m := (&member{t: t}).start(reader, events, "log", 0)
	p := fence(t, c)
	publish(t, p, message(events, "k", 1))
	w.silence()
	ctx, giveUp := context.WithCancel(t.Context())
	told := make(chan error, 1)
	go func() { told <- p.Publish(ctx, []outbox.Message{message(events, "k", 2)}) }()
	m.has(2)
	giveUp()
	if err := <-told; !errors.Is(err, context.Canceled) {
		t.Errorf("the request in doubt is told %v", err)
	}
	w.speak()
	publish(t, p, message(events, "k", 3))
	m.has(3)
	m.stop()
	inSequence(t, m.got, 3)
}

// Numbers are each partition's own, over requests and batches.
func TestWhatAFencedOwnerPublishesIsConsumedInSequence(t *testing.T) {
	const keys, each = 20, 40
	c, _ := fencing(t, 4)
	p := fence(t, c)
	for n := range each {
		var batch []outbox.Message
		for k := range keys {
			m := message(events, fmt.Sprint("k", k), n+1)
			m.Payload = append(m.Payload, ' ')
			m.Payload = append(m.Payload, make([]byte, 64<<10)...) // several requests
			batch = append(batch, m)
		}
		publish(t, p, batch...)
	}
	m := (&member{t: t}).start(c, events, "all", 50)
	m.has(keys * each)
	m.stop()
	if len(m.got) != keys*each {
		t.Errorf("%d messages came, want %d", len(m.got), keys*each)
	}
	inSequence(t, m.got, each)
	if first := m.got[0]; first.Headers["ce_id"] != string(first.Key)+"-1" || first.Time.IsZero() {
		t.Errorf("the first has headers %v and time %v", first.Headers, first.Time)
	}
}

func TestAFencedOwnerGoesOnAfterTheBrokersRestart(t *testing.T) {
	leaks(t)
	b := devtest.RestartableBroker(t)
	c, _ := installation(t, []string{b.Addr()}, devtest.Topic(t)+".")
	if err := c.EnsureTopic(t.Context(), events, 1); err != nil {
		t.Fatal(err)
	}
	p := fence(t, c)
	publish(t, p, message(events, "k", 1))
	b.Stop()
	b.Start()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := p.Publish(ctx, []outbox.Message{message(events, "k", 2)}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	zombie := p
	publish(t, fence(t, c), message(events, "k", 3))
	if err := zombie.Publish(t.Context(), []outbox.Message{message(events, "k", 3)}); !errors.Is(err, kafka.InvalidProducerEpoch) {
		t.Errorf("a zombie of before is told %v", err)
	}
	if got := logged(t, c); !slices.Equal(got, []string{"k-1", "k-2", "k-3"}) {
		t.Errorf("the log holds %v", got)
	}
}

// The new log knows no producer, and the numbers do not begin with 0.
func TestAFencedOwnerGoesOnInATopicMadeAnew(t *testing.T) {
	leaks(t)
	brokers, prefix := devtest.Brokers(t), devtest.Topic(t)+"."
	c, _ := installation(t, brokers, prefix)
	if err := c.EnsureTopic(t.Context(), events, 1); err != nil {
		t.Fatal(err)
	}
	p := fence(t, c)
	publish(t, p, message(events, "k", 1))
	makeAnew(t, brokers, prefix+events)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := p.Publish(ctx, []outbox.Message{message(events, "k", 2)}); err != nil {
		t.Logf("by the old numbers: %v", err)
		publish(t, fence(t, c), message(events, "k", 2))
	}
	if got := logged(t, c); !slices.Equal(got, []string{"k-2"}) {
		t.Errorf("the log holds %v", got)
	}
}

func makeAnew(t *testing.T, brokers []string, name string) {
	t.Helper()
	transport := &kafka.Transport{MetadataTTL: 50 * time.Millisecond}
	defer transport.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}
	deleted, err := c.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{name}})
	if err != nil || deleted.Errors[name] != nil {
		t.Fatal(err, deleted)
	}
	await(t, "a topic of the same name", func() bool {
		made, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
			Topics: []kafka.TopicConfig{{Topic: name, NumPartitions: 1, ReplicationFactor: 1}},
		})
		return err == nil && made.Errors[name] == nil
	})
}
