package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"payments/internal/inbox"
)

// A dead member's partitions are another's within session + heartbeat and a
// round of joining, which is less than 10 s.
const (
	sessionTimeout   = 6 * time.Second // Apache Kafka's group.min.session.timeout.ms
	heartbeat        = time.Second     // how soon a member learns of a rebalance
	rebalanceTimeout = 6 * time.Second
	joinBackoff      = 500 * time.Millisecond
	// groupTimeout is of one request to the group's coordinator, after what the
	// coordinator may take by right. A coordinator that begins a rebalance's time anew
	// with each member that joins takes more than one rebalanceTimeout: members that
	// gave up before the second is over, and joined again, would keep it from ending.
	groupTimeout = 10 * time.Second

	aliveInterval = time.Second
	// watchInterval is how soon an idle consumer notices that its database has lost commits.
	watchInterval = 3 * time.Second
	drainTimeout  = 3 * time.Second
	leaveTimeout  = 3 * time.Second
)

// ConsumerConfig needs all fields but MaxBatch.
type ConsumerConfig struct {
	Group string
	Topic string
	// MaxBatch is how many messages at most are handled at once, of all partitions
	// together. As many are fetched ahead of each partition. Default 500.
	MaxBatch int
	// Heartbeat is called each second in which every partition that is this member's
	// was asked for messages and none is held up by an error.
	Heartbeat  func()
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Sink takes messages in; *inbox.Inbox is one. The contexts of its methods end
// when the partition may be another's.
type Sink interface {
	// Claim comes before a generation's first Apply in a partition, and tells
	// where the sink stands in it, which is where it goes on, whatever the group has
	// committed. current asks the group's coordinator whether the generation still stands.
	Claim(ctx context.Context, topic string, partition, generation int, current func(next int64) error) (inbox.Offset, error)
	// ApplyAll takes a batch of each of several partitions in, as far as it comes: after an
	// error the messages that are not taken come again. After inbox.ErrFenced the group is
	// joined anew. It tells about the batches in their order.
	ApplyAll(ctx context.Context, generation int, batches [][]inbox.Message) []inbox.Taken
}

type consumer struct {
	ConsumerConfig
	client *Client
	sink   Sink
	lag    *prometheus.GaugeVec
	wg     sync.WaitGroup // of generations
}

// Consume is a member of the group until ctx ends, whatever ails the broker
// meanwhile. It begins where the sink stands, and at a topic's first message when
// it has taken nothing in; what the group commits is for others to look at. At the end the batches in
// hand are finished, for 3 s at most, and the group is left. An error means that
// the configuration is at fault. It registers payments_inbox_lag_messages, which
// consumers share.
func (c *Client) Consume(ctx context.Context, cfg ConsumerConfig, sink Sink) error {
	if cfg.Group == "" || cfg.Topic == "" || cfg.Heartbeat == nil || cfg.Log == nil || cfg.Registerer == nil || sink == nil {
		return errors.New("a consumer needs a group, a topic, a heartbeat, a logger, a registerer and a sink")
	}
	if cfg.MaxBatch < 0 {
		return fmt.Errorf("a batch of at most %d messages is negative", cfg.MaxBatch)
	}
	if cfg.MaxBatch == 0 {
		cfg.MaxBatch = 500
	}
	lag, err := lagGauge(cfg.Registerer)
	if err != nil {
		return err
	}
	cfg.Log = cfg.Log.With("consumer", cfg.Group, "topic", cfg.Topic)
	k := &consumer{ConsumerConfig: cfg, client: c, sink: sink, lag: lag}
	// Without its topic a group would rebalance in circles.
	if _, err := c.partitions(ctx, cfg.Topic); err != nil {
		cfg.Log.WarnContext(ctx, "consumer waits for its topic", "error", err)
	}
	if _, err := c.awaitTopic(ctx, cfg.Topic); err == nil {
		return k.run(ctx)
	}
	return nil // ctx has ended
}

func (k *consumer) run(ctx context.Context) error {
	conns := newConnections(k.client.config.Dial)
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: k.client.prefixed(k.Group), Topics: []string{k.client.prefixed(k.Topic)}, Brokers: k.client.brokers,
		Dialer:         k.client.dialer(conns),
		SessionTimeout: sessionTimeout, HeartbeatInterval: heartbeat, RebalanceTimeout: rebalanceTimeout,
		JoinGroupBackoff: joinBackoff + mathrand.N(joinBackoff), //nolint:gosec // jitter is no secret
		Timeout:          groupTimeout, WatchPartitionChanges: true,
		StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		return fmt.Errorf("consume %s as %s: %w", k.Topic, k.Group, err)
	}
	defer k.leave(group, conns)
	for {
		gen, err := group.Next(ctx) // errors come no faster than joinBackoff
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			k.Log.WarnContext(ctx, "consumer group not joined", "error", err)
		default:
			k.wg.Add(1)
			gen.Start(func(owned context.Context) {
				defer k.wg.Done()
				k.generation(ctx, owned, gen)
			})
		}
	}
}

// leave lets what is in hand be finished and then leaves the group. kafka-go
// waits for the broker there without a context: a broker that answers nothing
// is cut off.
func (k *consumer) leave(group *kafka.ConsumerGroup, conns *connections) {
	finished := make(chan struct{})
	go func() {
		k.wg.Wait()
		close(finished)
	}()
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	select {
	case <-finished:
	case <-timer.C:
	}
	cut := time.AfterFunc(leaveTimeout, conns.close)
	defer cut.Stop()
	_ = group.Close() // ends the generation, and is never an error
	<-finished
	conns.close()
}

// generation pumps the partitions that are this member's until owned ends, ctx
// ends, or a partition is another's.
func (k *consumer) generation(ctx, owned context.Context, gen *kafka.Generation) {
	owned, disown := context.WithCancel(owned)
	defer disown()
	fetching, stop := context.WithCancel(owned)
	defer stop()
	detach := context.AfterFunc(ctx, stop)
	defer detach()

	topic := k.client.prefixed(k.Topic)
	var commits sync.Mutex // one at a time on the connection that heartbeats share
	commit := func(offsets map[int]int64) error {
		commits.Lock()
		defer commits.Unlock()
		return gen.CommitOffsets(map[string]map[int]int64{topic: offsets})
	}
	fetched := make(chan struct{}, 1)
	a := &applier{consumer: k, generation: int(gen.ID), fetched: fetched, commit: commit, sent: map[int]int64{}}
	for _, assigned := range gen.Assignments[topic] {
		a.sent[assigned.ID] = assigned.Offset
		a.pumps = append(a.pumps, &pump{
			consumer: k, partition: assigned.ID, generation: int(gen.ID), committed: assigned.Offset,
			confirm: func(next int64) error { return commit(map[int]int64{assigned.ID: next}) },
			fetched: fetched, room: make(chan struct{}, 1), pause: newPause(), log: k.Log.With("partition", assigned.ID),
		})
	}
	k.Log.InfoContext(ctx, "partitions assigned", "partitions", len(a.pumps), "generation", gen.ID)
	var wg sync.WaitGroup
	for _, p := range a.pumps {
		wg.Go(func() {
			defer stop()
			p.run(fetching, owned)
		})
	}
	wg.Go(func() {
		defer stop()
		a.run(fetching, owned)
	})
	if w, ok := k.sink.(watched); ok {
		wg.Go(func() {
			defer stop()
			k.watch(fetching, w, int(gen.ID))
		})
	}
	k.reportAlive(fetching, a)
	wg.Wait()
}

// watched is a Sink whose position may be lost under an idle consumer: Stands is
// inbox.ErrFenced when it stands before what was taken in.
type watched interface {
	Stands(ctx context.Context, topic string, generation int) error
}

// watch ends when the sink has lost its position, or ctx has ended.
func (k *consumer) watch(ctx context.Context, sink watched, generation int) {
	each(ctx, watchInterval, func() (more bool) {
		err := sink.Stands(ctx, k.Topic, generation)
		if errors.Is(err, inbox.ErrFenced) {
			k.Log.WarnContext(ctx, "the consumer's position is lost, joining the group anew", "generation", generation, "error", err)
			return false
		}
		return true
	})
}

func (k *consumer) reportAlive(ctx context.Context, a *applier) {
	each(ctx, aliveInterval, func() (more bool) {
		alive := a.turned.Load()
		for _, p := range a.pumps {
			alive = p.alive() && alive
		}
		if alive {
			a.turned.Store(false)
			for _, p := range a.pumps {
				p.began()
			}
			k.Heartbeat()
		}
		return true
	})
}

// each calls do at each end of the interval, until it says that there is no more to do, or ctx has ended.
func each(ctx context.Context, interval time.Duration, do func() (more bool)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !do() {
			return
		}
	}
}

func lagGauge(reg prometheus.Registerer) (*prometheus.GaugeVec, error) {
	lag := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "payments_inbox_lag_messages", Help: "Messages of a partition that the consumer has not taken in.",
	}, []string{"consumer", "partition"})
	err := reg.Register(lag)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(*prometheus.GaugeVec); ok {
			return existing, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("register the consumers' lag: %w", err)
	}
	return lag, nil
}
