package outbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// ErrFenced means that another relay has taken over: nothing was written.
var ErrFenced = errors.New("another relay has taken over")

// A Publisher sends messages in order per key. Nil means that all are
// acknowledged; on an error nothing of a key after its failed message was sent.
// What was under way when ctx ended may still arrive.
type Publisher interface {
	Publish(ctx context.Context, msgs []Message) error
}

// RelayConfig needs a Registerer and a Log.
type RelayConfig struct {
	// Name of the row in outbox_relays. Default "main".
	Name string
	// Owner tells this relay from all others, living or dead. Default random.
	Owner string
	// Batch is how many messages at most are published at once. Default 1000.
	Batch int
	// Lease is the longest time that a dead relay holds the others up. Default 5 s.
	Lease time.Duration
	// Measure is the time between two looks at the oldest unpublished message. Default 1 s.
	Measure time.Duration
	// Now measures how long ago the lease was asked for; whether it holds is
	// the database's to say. Default time.Now.
	Now        func() time.Time
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Relay publishes while it owns the lease of its name, and measures always.
type Relay struct {
	RelayConfig
	pool      *pgxpool.Pool
	publisher Publisher

	published prometheus.Counter
	leader    prometheus.Gauge
	oldest    prometheus.Gauge

	mu       sync.Mutex
	row      bool // the relay's row is known to exist
	leading  bool
	epoch    int64
	leaseEnd time.Time // by Now, counted from before the lease was asked for
	cursor   cursor
	measured time.Time
}

// cursor is how far publishing has come. While a window is larger than a batch,
// page is the snapshot that ends it, and its rows up to position are published.
type cursor struct {
	done     string // pg_snapshot
	page     *string
	position int64
}

// NewRelay registers payments_outbox_published_total, payments_relay_leader and
// payments_outbox_oldest_unpublished_seconds.
func NewRelay(pool *pgxpool.Pool, publisher Publisher, c RelayConfig) (*Relay, error) {
	if pool == nil || publisher == nil || c.Registerer == nil || c.Log == nil {
		return nil, errors.New("a relay needs a pool, a publisher, a registerer and a logger")
	}
	if c.Batch < 0 || c.Lease < 0 || c.Measure < 0 {
		return nil, errors.New("a relay's batch, lease and measuring interval cannot be negative")
	}
	if c.Name == "" {
		c.Name = "main"
	}
	if c.Owner == "" {
		c.Owner = rand.Text()
	}
	if c.Batch == 0 {
		c.Batch = 1000
	}
	if c.Lease == 0 {
		c.Lease = 5 * time.Second
	}
	if c.Measure == 0 {
		c.Measure = time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &Relay{
		RelayConfig: c, pool: pool, publisher: publisher,
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "payments_outbox_published_total", Help: "Messages that the broker has acknowledged, repetitions included.",
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_relay_leader", Help: "1 while this process owns the relay's lease.",
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_outbox_oldest_unpublished_seconds", Help: "Age of the oldest committed message that is not published.",
		}),
	}
	for _, metric := range []prometheus.Collector{r.published, r.leader, r.oldest} {
		if err := c.Registerer.Register(metric); err != nil {
			return nil, fmt.Errorf("register relay %s: %w", c.Name, err)
		}
	}
	return r, nil
}

// Turn publishes the next batch if this relay owns the lease or can have it;
// again means that the batch was full. An error leaves the cursor where it was.
func (r *Relay) Turn(ctx context.Context) (again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	again, err = r.turn(ctx)
	if now := r.Now(); now.Sub(r.measured) >= r.Measure {
		r.measured = now
		age, merr := r.OldestUnpublished(ctx)
		if merr == nil {
			r.oldest.Set(age.Seconds())
		}
		err = errors.Join(err, merr)
	}
	return again, err
}

func (r *Relay) turn(ctx context.Context) (bool, error) {
	switch {
	case !r.leading:
		if err := r.acquire(ctx); err != nil || !r.leading {
			return false, err
		}
	case r.left() < r.Lease/2:
		if err := r.checkpoint(ctx); err != nil {
			return false, err
		}
	}
	w, err := r.read(ctx)
	if err != nil {
		return false, err
	}
	if len(w.messages) == 0 {
		r.cursor = w.next // nothing was published since, so that this can wait for the next checkpoint
		return false, nil
	}
	if err := r.publish(ctx, w.messages); err != nil {
		return false, err
	}
	r.cursor = w.next
	// What is published is written down even while the process is stopping.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Lease)
	defer cancel()
	return w.full, r.checkpoint(ctx)
}

// publish ends before the lease does, so that its successor begins alone.
func (r *Relay) publish(ctx context.Context, msgs []Message) error {
	ctx, cancel := context.WithTimeout(ctx, r.left()-r.Lease/10)
	defer cancel()
	if err := r.publisher.Publish(ctx, msgs); err != nil {
		return fmt.Errorf("publish %d messages: %w", len(msgs), err)
	}
	r.published.Add(float64(len(msgs)))
	return nil
}
