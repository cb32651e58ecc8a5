package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"payments/internal/inbox"
)

const (
	// fetchWait is how long a broker holds an answer back while there is nothing new;
	// what is new it sends at once.
	fetchWait    = 500 * time.Millisecond
	fetchTimeout = 5 * time.Second
)

// pump carries one partition's messages to the sink, batch after batch.
type pump struct {
	*consumer
	partition  int
	generation int
	offset     int64 // of the next message; negative until the partition's first is known
	commit     func(next int64) error
	log        *slog.Logger
	turned     atomic.Bool // since the last beat, without an error
}

// run ends when fetching does, or when an offset cannot be committed or a later
// generation has been here, so that the group is joined anew. What is handled is
// handled under owned.
func (p *pump) run(fetching, owned context.Context) {
	labels := []string{p.Group, strconv.Itoa(p.partition)}
	defer p.lag.DeleteLabelValues(labels...)
	lag := p.lag.WithLabelValues(labels...)
	if !p.claim(fetching, owned) {
		return
	}
	pause := newPause()
	for fetching.Err() == nil {
		batch, end, err := p.fetch(fetching)
		if err != nil {
			if fetching.Err() == nil {
				wait := pause.NextBackOff()
				p.log.WarnContext(fetching, "messages not fetched", "offset", p.offset, "error", err, "retry_in", wait)
				sleep(fetching, wait)
			}
			continue
		}
		pause.Reset()
		lag.Set(float64(end - p.offset))
		for part := range slices.Chunk(batch, p.MaxBatch) {
			if !p.apply(fetching, owned, part, func() { lag.Set(float64(end - p.offset)) }) || fetching.Err() != nil {
				return
			}
		}
		p.turned.Store(true)
	}
}

// claim tries until the sink knows the generation, and goes on where the sink
// stands. What the group has committed is less when the process died between the
// two or somebody set it back, and more when the sink's database was restored from
// a backup.
func (p *pump) claim(fetching, owned context.Context) bool {
	committed := p.offset
	// Only members of the generation that stands may commit.
	current := func(next int64) error { return p.commit(max(next, committed, 0)) }
	next := kafka.FirstOffset
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
		next = stands.Next
		return nil
	})
	if !ok || next == committed {
		return ok
	}
	p.log.InfoContext(fetching, "going on where the effects stand", "offset", next, "committed", committed)
	if p.offset = next; next < 0 {
		return true
	}
	return p.advance(fetching, next)
}

// knows is false when the log ends before the message that the sink has taken in
// last, or has another in its place: the topic was made anew, and what the sink
// has not seen lies before its offset. A message that is gone tells nothing.
func (p *pump) knows(ctx context.Context, at inbox.Place) (bool, error) {
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

// apply tries until the sink has taken the batch in; false means that the
// partition was lost or the consumer is stopping, and the batch is not.
func (p *pump) apply(fetching, owned context.Context, batch []inbox.Message, advanced func()) bool {
	return p.insist(fetching, "apply", func() error {
		taken, err := p.safely(owned, batch)
		if taken > 0 {
			if !p.advance(fetching, batch[taken-1].Offset+1) {
				return errUncommitted
			}
			advanced()
			batch = batch[taken:]
		}
		return err
	})
}

// errUncommitted was logged where it happened.
var errUncommitted = errors.New("offset not committed")

// insist tries until it works; false means that the consumer is stopping, or that
// the group has to be joined anew. The pauses between failures grow to 2 s.
func (p *pump) insist(fetching context.Context, what string, try func() error) bool {
	pause := newPause()
	for {
		err := try()
		if err == nil {
			return true
		}
		if fetching.Err() != nil || errors.Is(err, errUncommitted) {
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

// advance commits the offset of the next message.
func (p *pump) advance(ctx context.Context, next int64) bool {
	if err := p.commit(next); err != nil {
		p.log.WarnContext(ctx, "offset not committed, joining the group anew", "offset", next, "error", err)
		sleep(ctx, joinBackoff)
		return false
	}
	p.offset = next
	return true
}

func (p *pump) safely(ctx context.Context, batch []inbox.Message) (taken int, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	ctx, end := p.client.span(ctx, "process", p.Topic, trace.SpanKindConsumer, len(batch),
		func(i int) string { return batch[i].Headers[headerTrace] },
		attribute.String("messaging.consumer.group.name", p.Group), attribute.String("messaging.destination.partition.id", strconv.Itoa(p.partition)))
	defer func() { end(err) }()
	return p.sink.Apply(ctx, p.generation, batch)
}

func newPause() *backoff.ExponentialBackOff {
	pause := backoff.NewExponentialBackOff() // with jitter
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 2*time.Second
	return pause
}

// fetch waits up to fetchWait for messages from p.offset on; end is the offset
// behind the partition's newest.
func (p *pump) fetch(ctx context.Context) (batch []inbox.Message, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	if p.offset < 0 {
		if p.offset, err = p.first(ctx); err != nil {
			return nil, 0, err
		}
	}
	batch, end, err = p.client.fetch(ctx, p.Topic, p.partition, p.offset, fetchWait)
	if errors.Is(err, kafka.OffsetOutOfRange) {
		// Retention has passed the consumer by, or the log was truncated or made
		// anew: what comes again is no harm to an inbox, what is skipped is.
		p.log.ErrorContext(ctx, "offset is not in the log, beginning at its first message", "offset", p.offset)
		p.offset = kafka.FirstOffset
	}
	return batch, end, err
}

func (p *pump) first(ctx context.Context) (int64, error) {
	bounds, err := p.client.bounds(ctx, p.Topic, kafka.FirstOffsetOf(p.partition))
	if err != nil {
		return kafka.FirstOffset, err
	}
	return bounds[p.partition].FirstOffset, nil
}
