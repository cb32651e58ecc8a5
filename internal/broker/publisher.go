package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/segmentio/kafka-go"

	"payments/internal/outbox"
)

const (
	// maxRequest keeps a record batch below the broker's message.max.bytes, 1 MiB by default.
	maxRequest = 900_000
	// recordOverhead is more than the lengths and deltas around a record or a header take.
	recordOverhead = 32
)

// Publisher is the outbox's: a key goes to the partition that the Java client's
// default partitioner gives it, every in-sync replica acknowledges, each
// partition has one request under way, and stops at its first error.
type Publisher struct {
	client     *Client
	mu         sync.Mutex
	partitions map[string][]int
}

var _ outbox.Publisher = (*Publisher)(nil)

// NewPublisher shares the client's connections.
func NewPublisher(c *Client) *Publisher {
	return &Publisher{client: c, partitions: map[string][]int{}}
}

type place struct {
	topic     string
	partition int
}

// Publish sends the partitions' shares side by side and waits for all of them.
func (p *Publisher) Publish(ctx context.Context, msgs []outbox.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	shares := map[place][]kafka.Record{}
	for _, m := range msgs {
		partition, err := p.partition(ctx, m)
		if err != nil {
			return err
		}
		at := place{m.Topic, partition}
		shares[at] = append(shares[at], record(m))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for at, records := range shares {
		wg.Go(func() {
			if err := p.send(ctx, at, records); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("publish to %s/%d: %w", at.topic, at.partition, err))
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		clear(p.partitions) // the cluster may have changed
	}
	return errors.Join(errs...)
}

func (p *Publisher) partition(ctx context.Context, m outbox.Message) (int, error) {
	all, ok := p.partitions[m.Topic]
	if !ok {
		n, err := p.client.partitions(ctx, m.Topic)
		if err != nil {
			return 0, err
		}
		for i := range n {
			all = append(all, i)
		}
		p.partitions[m.Topic] = all
	}
	return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(m.Key)}, all...), nil
}

func (p *Publisher) send(ctx context.Context, at place, records []kafka.Record) error {
	for len(records) > 0 {
		n := request(records)
		res, err := p.client.client.Produce(ctx, &kafka.ProduceRequest{
			Topic: p.client.prefixed(at.topic), Partition: at.partition, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(records[:n]...),
		})
		switch {
		case err != nil:
			return err
		case res.Error != nil:
			return res.Error
		case len(res.RecordErrors) > 0:
			return fmt.Errorf("the broker refused records: %v", res.RecordErrors)
		}
		records = records[n:]
	}
	return nil
}

// request is how many of the records fit into one; always one at least.
func request(records []kafka.Record) int {
	size := 0
	for i, r := range records {
		size += recordOverhead + r.Key.Len() + r.Value.Len()
		for _, h := range r.Headers {
			size += recordOverhead + len(h.Key) + len(h.Value)
		}
		if size > maxRequest && i > 0 {
			return i
		}
	}
	return len(records)
}

func record(m outbox.Message) kafka.Record {
	headers := make([]kafka.Header, len(m.Headers))
	for i, h := range m.Headers {
		headers[i] = kafka.Header{Key: h.Key, Value: []byte(h.Value)}
	}
	value := m.Payload
	if value == nil {
		value = []byte{} // without a value it would be a tombstone
	}
	return kafka.Record{Key: kafka.NewBytes([]byte(m.Key)), Value: kafka.NewBytes(value), Headers: headers}
}
