package outbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// depth is how many batches a shard is handed ahead: one is being published while
// the next is read.
const depth = 2

// cursor is how far a shard has come. done is a snapshot, whose visible rows are
// all published. While a window is larger than a batch, page is the snapshot that
// ends it, it sees no position beyond end, and its rows up to position are published.
// from is of the newer of the two: transactions from its xmax on have drawn their
// positions beyond it.
type cursor struct {
	done          string // pg_snapshot
	page          string // pg_snapshot, or empty
	position, end int64
	from          int64 // 0 if not known
}

// shard is one that this relay owns. The relay's turns alone touch it, but for
// what queue guards.
type shard struct {
	id    int32
	epoch int64

	done  cursor // all before it is published
	read  cursor // all before it is published or handed out
	saved cursor // as the last checkpoint says
	dirty bool   // something was published since
	since time.Time

	outstanding int // batches handed out
	run         int // of an earlier one nothing counts any more
	releasing   bool
	err         error // of the last batch
	pause       *backoff.ExponentialBackOff
	resume      time.Time

	queue queue
}

type batch struct {
	run      int
	messages []Message
	next     cursor
	deadline time.Time
}

// queue publishes a shard's batches one after another, by a goroutine that ends
// when it is empty.
type queue struct {
	mu      sync.Mutex
	waiting []batch
	running bool
	failed  int // the run that a batch of has failed, so that those behind it stay unsent

	// The goroutine's own: what Fence returned and when, nil before and after an error.
	fenced   Publisher
	fencedAt time.Time
}

type outcome struct {
	shard *shard
	batch batch
	err   error
}

// outcomes come from the queues to the turns.
type outcomes struct {
	mu   sync.Mutex
	list []outcome
	wake chan struct{}
}

func (o *outcomes) add(one outcome) {
	o.mu.Lock()
	o.list = append(o.list, one)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outcomes) take() []outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.list
	o.list = nil
	return list
}

func newShard(id int32, epoch int64, c cursor, now time.Time) *shard {
	pause := backoff.NewExponentialBackOff() // with jitter
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, 2*time.Second
	return &shard{
		id: id, epoch: epoch, done: c, read: c, saved: c, since: now, run: 1, pause: pause,
		queue: queue{},
	}
}

// hand gives the shard what it has to publish to get to next, after all that it was handed before.
func (r *Relay) hand(ctx context.Context, s *shard, messages []Message, next cursor) {
	s.read = next
	if len(messages) == 0 && s.outstanding == 0 {
		s.done = next
		return
	}
	s.outstanding++
	// It ends before the lease does, so that the successor begins alone.
	b := batch{s.run, messages, next, r.leaseEnd.Add(-r.Lease / 10)}
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	s.queue.waiting = append(s.queue.waiting, b)
	if !s.queue.running {
		s.queue.running = true
		// A batch that has begun is finished while the process is stopping.
		go r.drain(context.WithoutCancel(ctx), s)
	}
}

func (r *Relay) drain(ctx context.Context, s *shard) {
	for {
		q := &s.queue
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.running = false
			q.mu.Unlock()
			return
		}
		b := q.waiting[0]
		q.waiting = q.waiting[1:]
		void := b.run == q.failed
		q.mu.Unlock()
		err := errVoid
		if !void {
			err = r.publish(ctx, s, b)
		}
		if err != nil {
			q.mu.Lock()
			q.failed = b.run
			q.mu.Unlock()
		}
		r.outcomes.add(outcome{s, b, err})
	}
}

// errVoid stands for a batch that was not sent since one before it failed.
var errVoid = errors.New("a batch before this one failed")

func (r *Relay) publish(ctx context.Context, s *shard, b batch) (err error) {
	if len(b.messages) == 0 {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	left := b.deadline.Sub(r.Now())
	if left <= 0 {
		return errors.New("the lease has ended")
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	p, err := r.fenced(ctx, s)
	if err != nil {
		return err
	}
	s.queue.fenced = nil // unless nothing is in doubt afterwards
	if err := p.Publish(ctx, b.messages); err != nil {
		return fmt.Errorf("publish %d messages: %w", len(b.messages), err)
	}
	s.queue.fenced = p
	r.metrics.published.Add(float64(len(b.messages)))
	return nil
}

// fenceFor bounds how long nothing is heard from a shard at the broker, which forgets
// whom there is to shut out: Kafka after 7 days (transactional.id.expiration.ms).
const fenceFor = 24 * time.Hour

// fenced is the publisher of this claim alone. It is had first, and then the shard is looked
// at: as long as it is ours, whoever claims it later gets one that shuts ours out. A
// zombie that had it too late sends nothing by it.
func (r *Relay) fenced(ctx context.Context, s *shard) (Publisher, error) {
	f, ok := r.publisher.(Fencer)
	if !ok {
		return r.publisher, nil
	}
	q := &s.queue
	if q.fenced != nil && r.Now().Sub(q.fencedAt) < fenceFor {
		return q.fenced, nil
	}
	p, err := f.Fence(ctx, s.id)
	if err != nil {
		return nil, fmt.Errorf("fence shard %d: %w", s.id, err)
	}
	var ours bool
	if err := r.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM outbox_shards WHERE shard = $1 AND epoch = $2 AND owner = $3)`,
		s.id, s.epoch, r.Owner).Scan(&ours); err != nil {
		return nil, fmt.Errorf("look whose shard %d is: %w", s.id, err)
	}
	if !ours {
		return nil, fmt.Errorf("shard %d was taken over", s.id)
	}
	q.fencedAt = r.Now()
	return p, nil
}

// collect takes in what the queues have done. Outcomes of a shard that was lost
// meanwhile count for nothing.
func (r *Relay) collect(ctx context.Context) {
	for _, o := range r.outcomes.take() {
		s := o.shard
		s.outstanding--
		switch {
		case o.err == nil:
			if o.batch.run == s.run {
				s.done, s.err = o.batch.next, nil
				s.dirty = s.dirty || len(o.batch.messages) > 0
				s.pause.Reset()
			}
		case errors.Is(o.err, errVoid):
		default:
			// Everything from the failed batch on is read and sent again.
			s.run++
			s.read, s.err = s.done, o.err
			wait := s.pause.NextBackOff()
			s.resume = r.Now().Add(wait)
			r.metrics.errors.Inc()
			r.Log.WarnContext(ctx, "shard not published", "shard", s.id, "error", o.err, "retry_in", wait)
		}
	}
}

// ready tells whether the shard can be handed more.
func (s *shard) ready(now time.Time) bool {
	return !s.releasing && s.outstanding < depth && !now.Before(s.resume) && (s.err == nil || s.outstanding == 0)
}
