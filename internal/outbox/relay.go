package outbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// A Publisher sends messages in order per key. Nil means that all are
// acknowledged; on an error nothing of a key after its failed message was sent.
// What was under way when ctx ended may still arrive. Shards publish side by side.
type Publisher interface {
	Publish(ctx context.Context, msgs []Message) error
}

// A Fencer is a Publisher that can shut out a shard's former owners. Fence returns a
// Publisher of the shard. Once something of it has reached a partition, nothing
// more arrives there of what was sent by those that Fence returned for the shard before. After an
// error it is of no use any more.
type Fencer interface {
	Publisher
	Fence(ctx context.Context, shard int32) (Publisher, error)
}

// RelayConfig needs a Registerer and a Log.
type RelayConfig struct {
	// Owner tells this relay from all others, living or dead. Default random.
	Owner string
	// Shards is how many there are, the same for every relay of the outbox: the
	// number of partitions that Publisher sends to, or a divisor of it. Default 1.
	Shards int
	// Batch is how many messages at most are read at once. Default 5000.
	Batch int
	// Lease is the longest time that a dead relay keeps its shards from the others; they look six times as
	// often. Default 3 s.
	Lease time.Duration
	// Checkpoint is the time between two of them while there is something to
	// publish: what was sent since the last one is sent again after a crash. Default 50 ms.
	Checkpoint time.Duration
	// Patience is how long a turn waits for a shard before it goes on with the
	// others. Default 100 ms.
	Patience time.Duration
	// Measure is the time between two looks at the oldest unpublished message. Default 1 s.
	Measure time.Duration
	// Ready says whether messages may be sent now. While they may not, the relay holds its
	// shards and measures. Default always.
	Ready func() bool
	// Now measures how long ago the lease was asked for; whether it holds is
	// the database's to say. Default time.Now.
	Now func() time.Time
	// Tail, which may be nil, reads back what was published, when the database was promoted
	// or recovered: to find messages whose commits are lost.
	Tail       Tail
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

func (c *RelayConfig) complete() error {
	if c.Registerer == nil || c.Log == nil {
		return errors.New("a relay needs a registerer and a logger")
	}
	if c.Shards < 0 || c.Batch < 0 {
		return errors.New("a relay's shards and batch cannot be negative")
	}
	for _, d := range []struct {
		value     *time.Duration
		otherwise time.Duration
	}{
		{&c.Lease, 3 * time.Second}, {&c.Checkpoint, 50 * time.Millisecond},
		{&c.Patience, 100 * time.Millisecond}, {&c.Measure, time.Second},
	} {
		if *d.value < 0 {
			return errors.New("a relay's durations cannot be negative")
		}
		if *d.value == 0 {
			*d.value = d.otherwise
		}
	}
	if c.Owner == "" {
		c.Owner = rand.Text()
	}
	if c.Shards == 0 {
		c.Shards = 1
	}
	if c.Batch == 0 {
		c.Batch = 5000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Ready == nil {
		c.Ready = func() bool { return true }
	}
	return nil
}

// Relay publishes the shards that it owns, and measures always.
type Relay struct {
	RelayConfig
	pool      *pgxpool.Pool
	publisher Publisher
	metrics   *metrics
	outcomes  *outcomes

	mu           sync.Mutex
	conn         *pgx.Conn // nil until joined
	shared       bool      // into RelayConfig.Shards
	server       Server    // that conn leads to
	promoted     bool      // the server was, and nobody has looked yet for lost commits
	heartbeatAt  time.Time
	leaseEnd     time.Time // by Now, counted from before the lease was asked for
	silent       map[string]silence
	last         int64 // position that the last look knew of
	from         int64 // what last was at the last heartbeat
	shards       map[int32]*shard
	closed       []closedPartition
	checkpointed time.Time
	measured     time.Time
	age          time.Duration // of the oldest unpublished message, at ageAt
	ageAt        time.Time
	told         time.Time
	came         bool      // last was another than before, and Rest has not asked since
	cameAt       time.Time // when Rest learned that
	resting      atomic.Bool
	wake         chan struct{}
	counted      time.Time // when the lost messages were counted
}

// NewRelay registers the relay's metrics.
func NewRelay(pool *pgxpool.Pool, publisher Publisher, c RelayConfig) (*Relay, error) {
	if pool == nil || publisher == nil {
		return nil, errors.New("a relay needs a pool and a publisher")
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register relay %s: %w", c.Owner, err)
	}
	m.wanted.Set(float64(c.Shards))
	return &Relay{
		RelayConfig: c, pool: pool, publisher: publisher, metrics: m,
		outcomes: &outcomes{wake: make(chan struct{}, 1)}, shards: map[int32]*shard{},
		wake: make(chan struct{}, 1),
	}, nil
}

const (
	// between two looks while messages come: what came meanwhile shares a look.
	between = 5 * time.Millisecond
	// Longest is the longest pause between two turns: once no message has come for quietAfter.
	Longest    = 100 * time.Millisecond
	quietAfter = time.Second
)

// Rest is the pause before the next turn. An outbox that nobody writes to is looked at 10
// times a second, and one that somebody writes to 200 times.
func (r *Relay) Rest() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	if r.came {
		r.came, r.cameAt = false, now
	}
	if r.busy(0) || now.Sub(r.cameAt) < quietAfter {
		return between
	}
	r.resting.Store(true)
	return Longest
}

// Wake ends a long rest. It is a hint for messages that were committed in this process.
func (r *Relay) Wake() {
	if r.resting.CompareAndSwap(true, false) {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// Woken fires after Wake.
func (r *Relay) Woken() <-chan struct{} { return r.wake }

// RunOnce takes part in sharing the shards out, and publishes what has become visible of
// those that are this relay's; again means that there is more. One shard's trouble
// is counted and tried again without holding up the others, and is an error when
// no shard is without. After an error of the database nothing in memory is
// believed: the next turn begins at the checkpoints.
func (r *Relay) RunOnce(ctx context.Context) (again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	again, err = r.turn(ctx)
	if err != nil {
		r.leave(ctx)
	} else {
		err = r.trouble()
	}
	if now := r.Now(); now.Sub(r.measured) >= r.Measure {
		r.measured = now
		err = errors.Join(err, r.measure(ctx))
	}
	return again, err
}

func (r *Relay) turn(ctx context.Context) (again bool, err error) {
	if r.conn == nil {
		if err := r.join(ctx); err != nil {
			return false, err
		}
	}
	if !r.shared {
		if !r.Ready() { // the number of shards may be wrong for the topic
			return false, nil
		}
		if err := r.divide(ctx); err != nil {
			return false, err
		}
		r.shared = true
	}
	if r.Now().Sub(r.heartbeatAt) >= r.Lease/6 {
		if err := r.heartbeat(ctx); err != nil {
			return false, err
		}
	}
	r.collect(ctx)
	if len(r.shards) == 0 {
		return false, nil
	}
	if !r.Ready() {
		return false, r.checkpoint(ctx, false)
	}
	if err := r.lookForLost(ctx); err != nil {
		return false, err
	}
	now, err := r.takeSnapshot(ctx)
	if err != nil {
		return false, err
	}
	for _, g := range r.groups() {
		more, err := r.advance(ctx, g, now)
		if err != nil {
			return false, err
		}
		again = again || more
	}
	r.await(ctx, again)
	return again, r.checkpoint(ctx, false)
}

// await waits until each shard is idle or, when there is more to hand out, can take
// another batch. Shards that are slow are left to themselves after a while.
func (r *Relay) await(ctx context.Context, more bool) {
	limit := 0
	if more {
		limit = depth - 1
	}
	timer := time.NewTimer(r.Patience)
	defer timer.Stop()
	for r.collect(ctx); r.busy(limit); r.collect(ctx) {
		select {
		case <-r.outcomes.wake:
		case <-timer.C:
			return
		}
	}
}

func (r *Relay) busy(limit int) bool {
	for _, s := range r.shards {
		if s.outstanding > limit {
			return true
		}
	}
	return false
}

// trouble is an error when each of the shards fails.
func (r *Relay) trouble() error {
	var failing int
	var last error
	for _, s := range r.shards {
		if s.err != nil {
			failing++
			last = fmt.Errorf("shard %d: %w", s.id, s.err)
		}
	}
	r.metrics.failing.Set(float64(failing))
	if failing == 0 || failing < len(r.shards) {
		return nil
	}
	return fmt.Errorf("none of %d shards can publish: %w", failing, last)
}
