package broker_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/segmentio/kafka-go"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/outbox"
)

var errAway = errors.New("away")

func TestARestartedConsumerResumesAtItsCommit(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 2)
	p := broker.NewPublisher(c)
	publish(t, p, message(name, "a", 1), message(name, "b", 1))
	first := (&member{t: t}).start(c, name, name, 0)
	first.has(2)
	first.stop() // what was handled is committed before it leaves
	publish(t, p, message(name, "a", 2), message(name, "b", 2))
	second := (&member{t: t}).start(c, name, name, 0)
	second.has(2)
	second.stop()
	got := second.ids()
	slices.Sort(got)
	if !slices.Equal(got, []string{"a-2", "b-2"}) {
		t.Errorf("the second consumer got %v", got)
	}
	another := (&member{t: t}).start(c, name, name+"-another", 0)
	another.has(4) // another group has its own place, from the beginning
}

func TestAFailedBatchComesAgainBeforeWhatIsBehindIt(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 1)
	for n := range 6 {
		publish(t, broker.NewPublisher(c), message(name, "a", n+1))
	}
	var away atomic.Bool
	away.Store(true)
	m := &member{t: t, gate: func(_ context.Context, batch []inbox.Message) error {
		switch {
		case batch[0].Offset == 2 && away.Load():
			return errAway
		case batch[0].Offset == 4 && away.CompareAndSwap(false, true):
			panic("at the disco")
		}
		return nil
	}}
	m.start(c, name, name, 2)
	await(t, "three tries of the second batch", func() bool { return m.count(&m.tries)() >= 4 })
	if sum, _ := lag(t, m.reg); sum != 4 {
		t.Errorf("lag = %v while 4 messages wait, want 4", sum)
	}
	m.stop()
	if got := m.ids(); !slices.Equal(got, []string{"a-1", "a-2"}) {
		t.Fatalf("handled %v", got)
	}
	away.Store(false)
	next := &member{t: t, gate: m.gate}
	next.start(c, name, name, 2)
	next.has(4)
	await(t, "no lag", func() bool { sum, partitions := lag(t, next.reg); return sum == 0 && partitions == 1 })
	next.stop()
	if got := next.ids(); !slices.Equal(got, []string{"a-3", "a-4", "a-5", "a-6"}) {
		t.Errorf("after the restart %v", got)
	}
	if _, partitions := lag(t, next.reg); partitions != 0 {
		t.Error("a consumer that has left still tells a lag")
	}
}

func TestWhatIsInHandIsFinishedAndCommittedAtTheEnd(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 2)
	publish(t, broker.NewPublisher(c), message(name, "a", 1), message(name, "a", 2))
	entered, release := make(chan struct{}), make(chan struct{})
	m := &member{t: t, gate: func(ctx context.Context, _ []inbox.Message) error {
		close(entered)
		<-release
		return ctx.Err()
	}}
	m.start(c, name, name, 1)
	<-entered
	await(t, "both partitions", func() bool { _, n := lag(t, m.reg); return n == 2 })
	m.cancel()
	await(t, "the end of the idle partition", func() bool { _, n := lag(t, m.reg); return n == 1 })
	close(release)
	m.stop()
	if got := m.ids(); !slices.Equal(got, []string{"a-1"}) {
		t.Errorf("finished %v, want the batch in hand", got)
	}
	next := (&member{t: t}).start(c, name, name, 1)
	next.has(1)
	next.stop()
	if got := next.ids(); !slices.Equal(got, []string{"a-2"}) {
		t.Errorf("after the restart %v", got)
	}
}

func TestHeartbeatsTellALivingConsumer(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 2)
	var away atomic.Bool
	m := &member{t: t, gate: func(context.Context, []inbox.Message) error {
		if away.Load() {
			return errAway
		}
		return nil
	}}
	m.start(c, name, name, 0)
	await(t, "heartbeats of an idle consumer", func() bool { return m.count(&m.heartbeats)() >= 2 })
	idle := (&member{t: t}).start(c, name, name, 0)
	third := (&member{t: t}).start(c, name, name, 0)
	await(t, "heartbeats of a member without a partition", func() bool {
		return idle.count(&idle.heartbeats)() >= 2 && third.count(&third.heartbeats)() >= 2
	})
	idle.stop()
	third.stop()

	await(t, "both partitions", func() bool { _, n := lag(t, m.reg); return n == 2 })
	away.Store(true)
	publish(t, broker.NewPublisher(c), message(name, "a", 1))
	tries := m.count(&m.tries)
	await(t, "a failure", func() bool { return tries() >= 1 })
	heartbeats := m.count(&m.heartbeats)()
	await(t, "more failures", func() bool { return tries() >= 10 })
	if more := m.count(&m.heartbeats)() - heartbeats; more > 1 { // one may have been due
		t.Errorf("%d heartbeats while one of two partitions fails", more)
	}
	away.Store(false)
	m.has(1)
}

func TestTheBrokerIsStoppedAndStarted(t *testing.T) {
	leaks(t)
	b := devtest.RestartableBroker(t)
	c, _ := another(t, []string{b.Addr()})
	outage(t, c, b.Stop, b.Start)
}

func TestTheNetworkBreaksAndIsMended(t *testing.T) {
	c, w := client(t)
	outage(t, c, w.fail, w.mend)
}

func outage(t *testing.T, c *broker.Client, begin, end func()) {
	t.Helper()
	name := topic(t, c, 3)
	p := broker.NewPublisher(c)
	m := (&member{t: t}).start(c, name, name, 0)
	batch := func(n int) []outbox.Message {
		return []outbox.Message{message(name, "a", n), message(name, "b", n), message(name, "c", n)}
	}
	publish(t, p, batch(1)...)
	m.has(3)
	begin()
	if err := p.Publish(t.Context(), batch(2)); err == nil {
		t.Error("Publish = nil while the broker is away")
	}
	if err := c.Ping(t.Context()); err == nil {
		t.Error("Ping = nil while the broker is away")
	}
	end()
	await(t, "publishing", func() bool { return p.Publish(t.Context(), batch(2)) == nil })
	await(t, "pings", func() bool { return c.Ping(t.Context()) == nil })
	publish(t, p, batch(3)...)
	await(t, "the last messages", func() bool {
		ids := m.ids()
		return slices.Contains(ids, "a-3") && slices.Contains(ids, "b-3") && slices.Contains(ids, "c-3")
	})
	m.stop()
	inSequence(t, m.got, 3)
}

func TestAnotherMemberTakesOverFromADeadOne(t *testing.T) {
	c, heirs := client(t)
	name := topic(t, c, 4)
	p := broker.NewPublisher(c)
	dying, w := another(t, heirs.brokers)
	entered := make(chan struct{}, 4)
	dead := &member{t: t, gate: func(ctx context.Context, _ []inbox.Message) error {
		entered <- struct{}{}
		<-ctx.Done() // it is told that its partitions may be another's
		return ctx.Err()
	}}
	dead.start(dying, name, name, 0)
	await(t, "all partitions", func() bool { _, n := lag(t, dead.reg); return n == 4 })
	heir := (&member{t: t}).start(c, name, name, 0)
	await(t, "a share for each", func() bool {
		_, a := lag(t, dead.reg)
		_, b := lag(t, heir.reg)
		return a == 2 && b == 2
	})
	for n := range 8 {
		publish(t, p, message(name, string(rune('a'+n)), 1))
	}
	<-entered
	w.fail()
	await(t, "the dead member's partitions", func() bool { return len(heir.ids()) == 8 })
	if got := dead.ids(); len(got) != 0 {
		t.Errorf("the dead member got %v", got)
	}
}

// A log that was truncated or made anew must not leave its consumer waiting for
// offsets that come one day, past messages that came meanwhile.
func TestAnOffsetThatTheLogDoesNotHaveBeginsAtTheFirst(t *testing.T) {
	c, w := client(t)
	name := topic(t, c, 1)
	publish(t, broker.NewPublisher(c), message(name, "a", 1), message(name, "a", 2))
	raw := &kafka.Client{Addr: kafka.TCP(w.brokers...), Transport: &kafka.Transport{Context: t.Context()}}
	committed, err := raw.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
		GroupID: name, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{name: {{Partition: 0, Offset: 100}}},
	})
	raw.Transport.(*kafka.Transport).CloseIdleConnections()
	if err == nil {
		err = committed.Topics[name][0].Error
	}
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, claim: func(int, func(int64) error) (inbox.Offset, error) { return inbox.Offset{Next: 100}, nil }}
	m.start(c, name, name, 0)
	m.has(2)
}

func TestConsumeEndsWhenTheBrokerIsSilent(t *testing.T) {
	c, w := client(t)
	name := topic(t, c, 1)
	m := (&member{t: t}).start(c, name, name, 0)
	publish(t, broker.NewPublisher(c), message(name, "a", 1))
	m.has(1)
	w.silence()
	m.stop()
}

func TestConsumeEndsWhenTheBrokerIsAway(t *testing.T) {
	c, w := client(t)
	name := topic(t, c, 1)
	m := (&member{t: t}).start(c, name, name, 0)
	publish(t, broker.NewPublisher(c), message(name, "a", 1))
	m.has(1)
	w.fail()
	m.stop()
}

func TestConsumeWaitsForItsTopicAndReadsItFromTheBeginning(t *testing.T) {
	c, _ := client(t)
	name := "late-" + topic(t, c, 1)
	m := (&member{t: t}).start(c, name, name, 0)
	if err := c.EnsureTopic(t.Context(), name, 2); err != nil {
		t.Fatal(err)
	}
	publish(t, broker.NewPublisher(c), message(name, "a", 1))
	m.has(1)
}

func TestConsumeRefusesWhatIsMissing(t *testing.T) {
	c, _ := client(t)
	if err := c.Consume(t.Context(), broker.ConsumerConfig{}, nil); err == nil {
		t.Error("Consume took nothing for a consumer")
	}
}
