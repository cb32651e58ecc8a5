package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/segmentio/kafka-go"
	"go.opentelemetry.io/otel/trace"

	"payments/internal/outbox"
)

const (
	// maxRequest keeps a record batch below a topic's max.message.bytes, 1 MiB by default.
	maxRequest = 900_000
	// recordOverhead is more than the lengths and deltas around a record or a header take.
	recordOverhead = 32
	// batchOverhead is more than what stands before the records of a batch.
	batchOverhead = 128
)

// Publisher is the outbox's: a key goes to the partition that the Java client's
// default partitioner gives it, every in-sync replica acknowledges, each
// partition has one request under way, and stops at its first error. Shards share it.
type Publisher struct {
	client     *Client
	mu         sync.Mutex
	partitions map[string][]int
	lanes      map[place]chan struct{}
}

var _ outbox.Publisher = (*Publisher)(nil)

// NewPublisher shares the client's connections.
func NewPublisher(c *Client) *Publisher {
	return &Publisher{client: c, partitions: map[string][]int{}, lanes: map[place]chan struct{}{}}
}

type place struct {
	topic     string
	partition int
}

// Publish sends the partitions' shares side by side and waits for all of them.
func (p *Publisher) Publish(ctx context.Context, msgs []outbox.Message) error {
	return p.publishBy(ctx, msgs, p.produce)
}

// produce sends what fits into one request.
type produce func(ctx context.Context, at place, records []kafka.Record) error

func (p *Publisher) publishBy(ctx context.Context, msgs []outbox.Message, by produce) error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, end := p.client.span(ctx, "send", msgs[0].Topic, trace.SpanKindProducer, len(msgs), func(i int) string {
		for _, h := range msgs[i].Headers {
			if h.Key == headerTrace {
				return h.Value
			}
		}
		return ""
	})
	err := p.publish(ctx, msgs, by)
	end(err)
	return err
}

func (p *Publisher) publish(ctx context.Context, msgs []outbox.Message, by produce) error {
	shares := map[place][]kafka.Record{}
	for _, m := range msgs {
		all, err := p.all(ctx, m.Topic)
		if err != nil {
			return err
		}
		at := place{m.Topic, partitionOf(m.Key, all)}
		shares[at] = append(shares[at], record(m))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for at, records := range shares {
		wg.Go(func() {
			if err := p.send(ctx, at, records, by); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("publish to %s/%d: %w", at.topic, at.partition, err))
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		clear(p.partitions) // the cluster may have changed
	}
	return errors.Join(errs...)
}

// partitionOf is that of the Java client's default partitioner.
func partitionOf(key string, all []int) int {
	return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(key)}, all...)
}

// Partition is where a key is published while its topic has so many partitions.
func (c *Client) Partition(key string, partitions int) int {
	all := make([]int, partitions)
	for i := range all {
		all[i] = i
	}
	return partitionOf(key, all)
}

// all partitions of the topic, from 0.
func (p *Publisher) all(ctx context.Context, topic string) ([]int, error) {
	p.mu.Lock()
	known := p.partitions[topic]
	p.mu.Unlock()
	if known != nil {
		return known, nil
	}
	n, err := p.client.partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partitions[topic] = all
	return all, nil
}

// enter waits until no other request to the partition is under way.
func (p *Publisher) enter(ctx context.Context, at place) (leave func(), err error) {
	p.mu.Lock()
	lane := p.lanes[at]
	if lane == nil {
		lane = make(chan struct{}, 1)
		p.lanes[at] = lane
	}
	p.mu.Unlock()
	select {
	case lane <- struct{}{}:
		return func() { <-lane }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *Publisher) send(ctx context.Context, at place, records []kafka.Record, by produce) error {
	leave, err := p.enter(ctx, at)
	if err != nil {
		return err
	}
	defer leave()
	for len(records) > 0 {
		n, size := request(records, p.client.requests.limit(at.topic))
		err := by(ctx, at, records[:n])
		if tooLarge(err) && n > 1 {
			p.client.requests.set(at.topic, size/2)
			continue
		}
		if err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

// tooLarge: the topic takes no batch of this size, and has appended nothing of it.
func tooLarge(err error) bool {
	return errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge)
}

// requests are how many bytes of records go into one request, by topic: maxRequest, unless
// the topic takes less, as its configuration says or as it has shown.
type requests struct {
	mu     sync.Mutex
	limits map[string]int
}

func (r *requests) limit(topic string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit, ok := r.limits[topic]; ok {
		return limit
	}
	return maxRequest
}

func (r *requests) set(topic string, limit int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limits == nil {
		r.limits = map[string]int{}
	}
	r.limits[topic] = min(max(limit, 1), maxRequest)
}

func (p *Publisher) produce(ctx context.Context, at place, records []kafka.Record) error {
	return outcome(p.client.client.Produce(ctx, &kafka.ProduceRequest{
		Topic: p.client.prefixed(at.topic), Partition: at.partition, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(records...),
	}))
}

func outcome(res *kafka.ProduceResponse, err error) error {
	switch {
	case err != nil:
		return err
	case res.Error != nil:
		return res.Error
	case len(res.RecordErrors) > 0:
		return fmt.Errorf("the broker refused records: %v", res.RecordErrors)
	}
	return nil
}

// request is how many of the records fit into one of at most limit bytes, always one at
// least, and how many bytes they are.
func request(records []kafka.Record, limit int) (n, size int) {
	for i, r := range records {
		more := recordOverhead + r.Key.Len() + r.Value.Len()
		for _, h := range r.Headers {
			more += recordOverhead + len(h.Key) + len(h.Value)
		}
		if size+more > limit && i > 0 {
			return i, size
		}
		size += more
	}
	return len(records), size
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
