package readmodel

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/outbox"
)

// pipeline is a topic of a broker and the read model behind it.
type pipeline struct {
	*world
	brokers []string
	client  *broker.Client
	topic   string
}

func newPipeline(t *testing.T) *pipeline {
	t.Helper()
	p := &pipeline{world: newWorld(t), brokers: devtest.Brokers(t), topic: devtest.Topic(t)}
	var err error
	if p.client, err = broker.NewClient(p.brokers, broker.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	if err := p.client.EnsureTopic(t.Context(), p.topic, 4); err != nil {
		t.Fatal(err)
	}
	return p
}

// consumer is one process of the projector until stop.
func (p *pipeline) consumer() (stop func()) {
	p.t.Helper()
	in, err := NewProjector().NewInbox(p.pool, "payment_view",
		inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- p.client.Consume(ctx, broker.ConsumerConfig{
			Group: p.topic, Topic: p.topic, MaxBatch: 20, Heartbeat: func() {}, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		}, in)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("Consume: %v", err)
		}
	}
	p.t.Cleanup(stop)
	return stop
}

func (p *pipeline) publish(events []inbox.Message) {
	p.t.Helper()
	batch := make([]outbox.Message, len(events))
	for i, e := range events {
		batch[i] = outbox.Message{Topic: p.topic, Key: string(e.Key), Payload: e.Value}
		for name, value := range e.Headers {
			batch[i].Headers = append(batch[i].Headers, outbox.Header{Key: name, Value: value})
		}
	}
	if err := broker.NewPublisher(p.client).Publish(p.t.Context(), batch); err != nil {
		p.t.Fatal(err)
	}
}

// succeeded publishes all events of so many payments, interleaved.
func (p *pipeline) succeeded(payments int) (published []inbox.Message) {
	p.t.Helper()
	lives := make([][]inbox.Message, payments)
	merchant := p.merchant()
	for i := range lives {
		lives[i] = p.order(merchant).succeeded()
	}
	for step := range lives[0] {
		var batch []inbox.Message
		for _, l := range lives {
			batch = append(batch, l[step])
		}
		p.publish(batch)
		published = append(published, batch...)
	}
	return published
}

// settles waits until so many payments have come to their last event.
func (p *pipeline) settles(payments int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 40*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := -1; n != payments; {
		if err := p.pool.QueryRow(ctx, `SELECT count(*) FROM payment_view WHERE sequence = 5`).Scan(&n); err != nil {
			p.t.Fatalf("%d of %d payments are settled; dead letters: %q; %v", n, payments, p.deadLetters(), err)
		}
		<-tick.C
	}
}

// offsets are all messages of the topic, as the read model's database has them.
func (p *pipeline) offsets() (sum int64) {
	p.t.Helper()
	if err := p.pool.QueryRow(p.t.Context(), `SELECT coalesce(sum(next_offset), 0)::bigint FROM inbox_offsets`).Scan(&sum); err != nil {
		p.t.Fatal(err)
	}
	return sum
}

func TestEventsSurviveRebalancesOfTheirConsumers(t *testing.T) {
	p := newPipeline(t)
	p.consumer()
	second := p.consumer()
	p.succeeded(30)
	third := p.consumer()
	p.succeeded(30)
	second()
	p.succeeded(30)
	third()
	p.settles(90)
	same(t, "dead letters", p.deadLetters(), []string{})
	if rows := p.contents(); len(rows) != 90*6 {
		t.Errorf("%d rows, want 90 payments with 5 lines each", len(rows))
	}
	if sum := p.offsets(); sum != 450 {
		t.Errorf("the offsets come to %d, want 450", sum)
	}
}

// The naive consumer believes the group, and its ids have expired; the trap is
// held by internal/inbox, and this is its shape on a broker.
func TestAGroupThatIsSetBackOrForgottenChangesNothing(t *testing.T) {
	p := newPipeline(t)
	stop := p.consumer()
	published := p.succeeded(20)
	p.settles(20)
	stop()
	before := p.contents()

	back := map[string][]kafka.OffsetCommit{}
	for i := range 4 {
		back[p.topic] = append(back[p.topic], kafka.OffsetCommit{Partition: i, Offset: 0})
	}
	raw := &kafka.Client{Addr: kafka.TCP(p.brokers...), Transport: &kafka.Transport{Context: t.Context()}}
	defer raw.Transport.(*kafka.Transport).CloseIdleConnections()
	if _, err := raw.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{GroupID: p.topic, GenerationID: -1, Topics: back}); err != nil {
		t.Fatal(err)
	}
	// As if the broker had counted to a thousand before it forgot the group.
	for _, sql := range []string{`UPDATE inbox_offsets SET generation = 1000`, `DELETE FROM inbox_messages`} {
		if _, err := p.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	stop = p.consumer()
	p.succeeded(10)
	p.settles(30)
	stop()
	same(t, "what was there before", withOnly(p.contents(), before), before)

	// Not even if the rows of the offsets are lost as well, and everything comes again.
	if _, err := raw.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{GroupID: p.topic, GenerationID: -1, Topics: back}); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{`DELETE FROM inbox_offsets`, `DELETE FROM inbox_messages`} {
		if _, err := p.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	p.publish(published) // and what the relay sends twice
	p.consumer()
	p.succeeded(1)
	p.settles(31)
	p.reaches(20*5 + 10*5 + 20*5 + 5)
	same(t, "what was there before", withOnly(p.contents(), before), before)
	same(t, "dead letters", p.deadLetters(), []string{})
}

func (p *pipeline) reaches(offsets int64) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 40*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.offsets() != offsets {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("the offsets come to %d, want %d", p.offsets(), offsets)
		}
	}
}

func withOnly(all, these []string) (found []string) {
	known := map[string]bool{}
	for _, t := range these {
		known[t] = true
	}
	for _, a := range all {
		if known[a] {
			found = append(found, a)
		}
	}
	return found
}
