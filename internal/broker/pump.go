package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"

	"payments/internal/inbox"
)

const (
	// fetchWait is how long a broker holds an answer back while there is nothing new;
	// what is new it sends at once.
	fetchWait    = 500 * time.Millisecond
	fetchTimeout = 5 * time.Second
	fetchBytes   = 1 << 20
)

// pump carries one partition's messages to the handler, batch after batch.
type pump struct {
	*consumer
	partition int
	offset    int64 // of the next message; negative until the partition's first is known
	commit    func(next int64) error
	log       *slog.Logger
	turned    atomic.Bool // since the last beat, without an error
}

// run ends when fetching does, or when an offset cannot be committed, so that
// the group is joined anew. What is handled is handled under owned.
func (p *pump) run(fetching, owned context.Context) {
	labels := []string{p.Group, strconv.Itoa(p.partition)}
	defer p.lag.DeleteLabelValues(labels...)
	lag := p.lag.WithLabelValues(labels...)
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
			if !p.apply(fetching, owned, part) {
				return
			}
			next := part[len(part)-1].Offset + 1
			if err := p.commit(next); err != nil {
				p.log.WarnContext(fetching, "offset not committed, joining the group anew", "offset", next, "error", err)
				sleep(fetching, joinBackoff)
				return
			}
			p.offset = next
			lag.Set(float64(end - next))
			if fetching.Err() != nil {
				return
			}
		}
		p.turned.Store(true)
	}
}

// apply tries until the handler has taken the batch in; false means that the
// partition was lost or the consumer is stopping, and the batch is not.
func (p *pump) apply(fetching, owned context.Context, batch []inbox.Message) bool {
	pause := newPause()
	for {
		err := p.safely(owned, batch)
		if err == nil {
			return true
		}
		if fetching.Err() != nil {
			return false
		}
		wait := pause.NextBackOff()
		p.log.ErrorContext(fetching, "batch not handled", "offset", batch[0].Offset, "messages", len(batch),
			"error", err, "retry_in", wait)
		if !sleep(fetching, wait) {
			return false
		}
	}
}

func (p *pump) safely(ctx context.Context, batch []inbox.Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return p.handle(ctx, batch)
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
	res, err := p.client.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: p.client.prefixed(p.Topic), Partition: p.partition, Offset: p.offset,
		MinBytes: 1, MaxBytes: fetchBytes, MaxWait: fetchWait,
	})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.OffsetOutOfRange) {
		// Retention has passed the consumer by, or the log was truncated or made
		// anew: what comes again is no harm to an inbox, what is skipped is.
		p.log.ErrorContext(ctx, "offset is not in the log, beginning at its first message", "offset", p.offset)
		p.offset = kafka.FirstOffset
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, err
	}
	for {
		r, err := res.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return batch, res.HighWatermark, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read records: %w", err)
		}
		m, err := p.message(r)
		if err != nil {
			return nil, 0, fmt.Errorf("read record %d: %w", r.Offset, err)
		}
		if m.Offset >= p.offset { // the broker sends whole batches, from their beginning
			batch = append(batch, m)
		}
	}
}

func (p *pump) first(ctx context.Context) (int64, error) {
	res, err := p.client.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{p.client.prefixed(p.Topic): {kafka.FirstOffsetOf(p.partition)}},
	})
	if err != nil {
		return kafka.FirstOffset, err
	}
	for _, o := range res.Topics[p.client.prefixed(p.Topic)] {
		if o.Partition == p.partition {
			if o.Error != nil {
				return kafka.FirstOffset, o.Error
			}
			return o.FirstOffset, nil
		}
	}
	return kafka.FirstOffset, kafka.UnknownTopicOrPartition
}

func (p *pump) message(r *kafka.Record) (inbox.Message, error) {
	key, err := take(r.Key)
	if err != nil {
		return inbox.Message{}, err
	}
	value, err := take(r.Value)
	if err != nil {
		return inbox.Message{}, err
	}
	headers := make(map[string]string, len(r.Headers))
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	return inbox.Message{
		Topic: p.Topic, Partition: p.partition, Offset: r.Offset, Key: key, Value: value, Headers: headers,
	}, nil
}

// take copies the bytes out of kafka-go's buffer and gives that back.
func take(b kafka.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	defer b.Close()
	return kafka.ReadAll(b)
}
