package broker

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"payments/internal/inbox"
)

const (
	// fetchWait is how long a broker holds an answer back while there is nothing new;
	// what is new it sends at once.
	fetchWait    = 500 * time.Millisecond
	fetchTimeout = 5 * time.Second
)

// pump fetches one partition's messages ahead of the generation's applier.
type pump struct {
	*consumer
	partition  int
	generation int
	committed  int64 // by the group, when the generation began
	confirm    func(next int64) error
	fetched    chan<- struct{} // wakes the applier
	log        *slog.Logger
	lag        prometheus.Gauge

	mu     sync.Mutex
	offset int64           // of the next message to fetch; negative until the partition's first is known
	queue  []inbox.Message // fetched and not taken in
	taken  int64           // the offset behind the last message that was taken in; negative before the first
	end    int64           // the offset behind the partition's newest message, when it was last asked for
	turned bool            // asked for messages without an error since the last heartbeat
	room   chan struct{}   // wakes the pump when something is in hand no more
	hand   bool            // some of the queue is in hand
	stuck  bool            // the last try of its messages has failed
	pause  *backoff.ExponentialBackOff
	again  time.Time // not to be tried before
}

// run fetches until fetching ends, and returns when nothing of the partition is in hand.
// The sink is asked under owned.
func (p *pump) run(fetching, owned context.Context) {
	labels := []string{p.Group, strconv.Itoa(p.partition)}
	p.lag = p.consumer.lag.WithLabelValues(labels...)
	defer p.consumer.lag.DeleteLabelValues(labels...)
	defer p.awaitHand()
	if !p.claim(fetching, owned) {
		return
	}
	pause := newPause()
	for p.awaitRoom(fetching) {
		if err := p.fetch(fetching); err != nil && fetching.Err() == nil {
			wait := pause.NextBackOff()
			p.log.WarnContext(fetching, "messages not fetched", "offset", p.offset, "error", err, "retry_in", wait)
			sleep(fetching, wait)
			continue
		}
		pause.Reset()
	}
}

// awaitRoom waits until less than a batch is fetched ahead; false is the end.
func (p *pump) awaitRoom(fetching context.Context) bool {
	for fetching.Err() == nil {
		p.mu.Lock()
		full := len(p.queue) >= p.MaxBatch
		p.mu.Unlock()
		if !full {
			return true
		}
		select {
		case <-p.room:
		case <-fetching.Done():
		}
	}
	return false
}

// awaitHand waits until nothing of the partition is in hand. Fetching has ended.
func (p *pump) awaitHand() {
	for {
		p.mu.Lock()
		hand := p.hand
		p.mu.Unlock()
		if !hand {
			return
		}
		<-p.room
	}
}

// fetch waits up to fetchWait for messages from p.offset on.
func (p *pump) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	if p.offset < 0 {
		first, err := p.first(ctx)
		if err != nil {
			return err
		}
		p.offset = first
	}
	batch, end, err := p.client.fetch(ctx, p.Topic, p.partition, p.offset, fetchWait)
	if errors.Is(err, kafka.OffsetOutOfRange) {
		// Retention has passed the consumer by, or the log was truncated or made
		// anew: what comes again is no harm to an inbox, what is skipped is.
		p.log.ErrorContext(ctx, "offset is not in the log, beginning at its first message", "offset", p.offset)
		p.offset = kafka.FirstOffset
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(batch) > 0 {
		p.queue, p.offset = append(p.queue, batch...), batch[len(batch)-1].Offset+1
	}
	if p.taken < 0 {
		p.taken = p.offset - int64(len(p.queue))
	}
	p.end, p.turned = end, true
	p.lag.Set(float64(max(p.end-p.taken, 0)))
	if len(batch) > 0 {
		select {
		case p.fetched <- struct{}{}:
		default: // it has not yet come to the last one
		}
	}
	return nil
}

// take is what may be tried now, at most n messages in the order of their offsets. Until
// gave is called they are in hand.
func (p *pump) take(now time.Time, n int) []inbox.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.again) || len(p.queue) == 0 {
		return nil
	}
	n = min(n, len(p.queue))
	for i := 1; i < n; i++ {
		if p.queue[i].Offset <= p.queue[i-1].Offset { // another log begins here
			n = i
		}
	}
	p.hand = true
	return p.queue[:n:n]
}

// waits is how many messages may be tried now, and else when some may.
func (p *pump) waits(now time.Time) (n int, again time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) > 0 && now.Before(p.again) {
		return 0, p.again
	}
	return len(p.queue), time.Time{}
}

// gave says what became of what was in hand.
func (p *pump) gave(ctx context.Context, now time.Time, t inbox.Taken) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hand = false
	if t.N > 0 {
		p.taken = p.queue[t.N-1].Offset + 1
		p.queue = p.queue[t.N:]
		p.lag.Set(float64(max(p.end-p.taken, 0)))
		p.pause.Reset()
	}
	select {
	case p.room <- struct{}{}:
	default:
	}
	if p.stuck = t.Err != nil; !p.stuck || errors.Is(t.Err, inbox.ErrFenced) {
		return
	}
	wait := p.pause.NextBackOff()
	p.again = now.Add(wait)
	p.log.ErrorContext(ctx, "partition stands still", "at", "apply", "offset", p.taken, "error", t.Err, "retry_in", wait)
}

// alive is true if it was asked for messages since began, and its messages are taken in.
func (p *pump) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turned && !p.stuck
}

func (p *pump) began() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turned = false
}

// claim tries until the sink knows the generation, and goes on where the sink
// stands. What the group has committed is less when the process died between the
// two or somebody set it back, and more when the sink's database was restored from
// a backup.
func (p *pump) claim(fetching, owned context.Context) bool {
	// Only members of the generation that stands may commit.
	current := func(next int64) error { return p.confirm(max(next, p.committed, 0)) }
	p.stand(kafka.FirstOffset, -1)
	ok := p.insist(fetching, "claim", func() error {
		stands, err := p.sink.Claim(owned, p.Topic, p.partition, p.generation, current)
		if err != nil || stands.Next < 0 {
			return err
		}
		same, err := p.knows(fetching, stands)
		if err != nil {
			return err
		}
		if !same {
			p.log.ErrorContext(fetching, "another log under the topic's name, beginning at its first message", "consumed", stands.Next)
			return nil
		}
		p.stand(stands.Next, stands.Next)
		return nil
	})
	if ok && p.offset != p.committed {
		p.log.InfoContext(fetching, "going on where the effects stand", "offset", p.offset, "committed", p.committed)
	}
	return ok
}

func (p *pump) stand(offset, taken int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offset, p.taken = offset, taken
}

// knows is false when the log ends before the message that the sink has taken in
// last, or has another in its place: the topic was made anew, and what the sink
// has not seen lies before its offset. A message that is gone tells nothing.
func (p *pump) knows(ctx context.Context, at inbox.Offset) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	bounds, err := p.client.bounds(ctx, p.Topic, kafka.FirstOffsetOf(p.partition), kafka.LastOffsetOf(p.partition))
	if err != nil {
		return false, err
	}
	first, end := bounds[p.partition].FirstOffset, bounds[p.partition].LastOffset
	if at.Next > end {
		return false, nil
	}
	if at.LastID == "" || at.Next-1 < first {
		return true, nil
	}
	batch, _, err := p.client.fetch(ctx, p.Topic, p.partition, at.Next-1, time.Millisecond)
	if err != nil {
		return false, err
	}
	return len(batch) == 0 || batch[0].Offset != at.Next-1 || batch[0].Headers[inbox.HeaderID] == at.LastID, nil
}

// insist tries until it works; false means that the consumer is stopping, or that
// the group has to be joined anew. The pauses between failures grow to 2 s.
func (p *pump) insist(fetching context.Context, what string, try func() error) bool {
	pause := newPause()
	for {
		err := try()
		if err == nil {
			return true
		}
		if fetching.Err() != nil {
			return false
		}
		if errors.Is(err, inbox.ErrFenced) {
			p.log.WarnContext(fetching, "partition is another's, joining the group anew", "generation", p.generation, "error", err)
			sleep(fetching, joinBackoff)
			return false
		}
		wait := pause.NextBackOff()
		p.log.ErrorContext(fetching, "partition stands still", "at", what, "offset", p.offset, "error", err, "retry_in", wait)
		if !sleep(fetching, wait) {
			return false
		}
	}
}

func newPause() *backoff.ExponentialBackOff {
	pause := backoff.NewExponentialBackOff() // with jitter
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 2*time.Second
	return pause
}

func (p *pump) first(ctx context.Context) (int64, error) {
	bounds, err := p.client.bounds(ctx, p.Topic, kafka.FirstOffsetOf(p.partition))
	if err != nil {
		return kafka.FirstOffset, err
	}
	return bounds[p.partition].FirstOffset, nil
}
