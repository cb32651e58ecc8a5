package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"

	"payments/internal/inbox"
)

const fetchBytes = 1 << 20

// Waiting is the first message of each partition of the topic that is not behind
// the offsets in next, in no order; a partition that next does not have, or whose
// offset is not in the log, has its first message waiting. It asks the log, so
// that a consumer's word about its own lag is not needed.
func (c *Client) Waiting(ctx context.Context, topic string, next map[int]int64) ([]inbox.Message, error) {
	spans, err := c.Spans(ctx, topic)
	if err != nil {
		return nil, err
	}
	var waiting []inbox.Message
	for i, span := range spans {
		at, ok := next[i]
		if !ok || at < span[0] || at > span[1] {
			at = span[0]
		}
		if at == span[1] {
			continue
		}
		batch, _, err := c.fetch(ctx, topic, i, at, time.Millisecond)
		if err != nil {
			return nil, fmt.Errorf("look at %s/%d from offset %d: %w", topic, i, at, err)
		}
		if len(batch) > 0 {
			waiting = append(waiting, batch[0])
		}
	}
	return waiting, nil
}

// Spans has for each partition of the topic its first offset and the one behind
// its newest message.
func (c *Client) Spans(ctx context.Context, topic string) (map[int][2]int64, error) {
	n, err := c.partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	asked := make([]kafka.OffsetRequest, 0, 2*n)
	for i := range n {
		asked = append(asked, kafka.FirstOffsetOf(i), kafka.LastOffsetOf(i))
	}
	bounds, err := c.bounds(ctx, topic, asked...)
	if err != nil {
		return nil, err
	}
	spans := make(map[int][2]int64, n)
	for i, b := range bounds {
		spans[i] = [2]int64{b.FirstOffset, b.LastOffset}
	}
	return spans, nil
}

// Read is what the partition holds from the offset on, as far as one answer goes,
// outside of any group.
func (c *Client) Read(ctx context.Context, topic string, partition int, offset int64) ([]inbox.Message, error) {
	batch, _, err := c.fetch(ctx, topic, partition, offset, fetchWait)
	return batch, err
}

// bounds are the offsets that the log of each asked partition has.
func (c *Client) bounds(ctx context.Context, topic string, asked ...kafka.OffsetRequest) (map[int]kafka.PartitionOffsets, error) {
	res, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{c.prefixed(topic): asked}})
	if err == nil {
		err = ctx.Err() // which the library tells as an unknown error of the broker, partition by partition
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the offsets of %s: %w", topic, err)
	}
	bounds := map[int]kafka.PartitionOffsets{}
	for _, o := range res.Topics[c.prefixed(topic)] {
		if o.Error != nil {
			return nil, fmt.Errorf("ask for the offsets of %s/%d: %w", topic, o.Partition, o.Error)
		}
		bounds[o.Partition] = o
	}
	for _, a := range asked {
		if _, ok := bounds[a.Partition]; !ok {
			return nil, fmt.Errorf("ask for the offsets of %s/%d: %w", topic, a.Partition, kafka.UnknownTopicOrPartition)
		}
	}
	return bounds, nil
}

// fetch is what the partition holds from the offset on, as far as one answer
// goes; end is the offset behind its newest message.
func (c *Client) fetch(ctx context.Context, topic string, partition int, offset int64, wait time.Duration) (batch []inbox.Message, end int64, err error) {
	res, err := c.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: c.prefixed(topic), Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: fetchBytes, MaxWait: wait,
	})
	if err == nil {
		err = res.Error
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
		m, err := message(topic, partition, r)
		if err != nil {
			return nil, 0, fmt.Errorf("read record %d: %w", r.Offset, err)
		}
		if m.Offset >= offset { // the broker sends whole batches, from their beginning
			batch = append(batch, m)
		}
	}
}

func message(topic string, partition int, r *kafka.Record) (inbox.Message, error) {
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
		Topic: topic, Partition: partition, Offset: r.Offset, Time: r.Time, Key: key, Value: value, Headers: headers,
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
