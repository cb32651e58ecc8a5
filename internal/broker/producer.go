package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"payments/internal/outbox"
)

const (
	// transactionTimeout has to be named, and never runs: no transaction is begun. The Java client's default.
	transactionTimeout = time.Minute
	// resendPause is between two requests that are the same.
	resendPause = 50 * time.Millisecond
)

// Fencer is a Publisher that lets the broker tell a shard's owners apart. A shard has a
// transactional id, for which the broker's coordinator gives out one producer id and, each
// time it is asked, the next epoch. A partition appends no batch of a lower epoch than
// it has seen. That is all that is used of transactions; what is sent is visible at once.
type Fencer struct{ *Publisher }

var _ outbox.Fencer = (*Fencer)(nil)

// NewFencer shares the client's connections.
func NewFencer(c *Client) *Fencer { return &Fencer{NewPublisher(c)} }

// Fence gives the shard the next epoch.
func (f *Fencer) Fence(ctx context.Context, shard int32) (outbox.Publisher, error) {
	id := f.client.prefixed(fmt.Sprintf("%s.outbox-%d", clientID, shard))
	for {
		// -1 stands for whoever had it before: who may have it, the caller asks the database.
		res, err := f.client.client.InitProducerID(ctx, &kafka.InitProducerIDRequest{
			TransactionalID: id, TransactionTimeoutMs: int(transactionTimeout.Milliseconds()), ProducerID: -1, ProducerEpoch: -1,
		})
		if err == nil {
			err = res.Error
		}
		if err == nil {
			return &producer{of: f.Publisher, id: res.Producer.ProducerID, epoch: res.Producer.ProducerEpoch, next: map[place]int32{}}, nil
		}
		if !passing(err) || !sleep(ctx, resendPause) {
			return nil, fmt.Errorf("initialize the transactional id %q: %w", id, err)
		}
	}
}

// passing tells whether the same request can succeed later.
func passing(err error) bool {
	var said kafka.Error
	return !errors.As(err, &said) || said.Temporary() ||
		errors.Is(said, kafka.BrokerNotAvailable) || errors.Is(said, kafka.ConcurrentTransactions)
}

// producer numbers the records that it sends to a partition. A number is given once,
// whatever becomes of it, so that the broker takes a batch for the repetition of
// another only if it is one. A batch that is too large is no exception: its records get
// the same numbers when they come again.
type producer struct {
	of        *Publisher
	id, epoch int
	mu        sync.Mutex
	next      map[place]int32
}

// Publish sends what a lost answer leaves in doubt again until ctx ends, and the
// broker appends it once.
func (p *producer) Publish(ctx context.Context, msgs []outbox.Message) error {
	return p.of.publishBy(ctx, msgs, p.produce)
}

func (p *producer) produce(ctx context.Context, at place, records []kafka.Record) error {
	batch, err := encode(records)
	if err != nil {
		return err
	}
	first := p.number(at, len(records))
	p.sign(batch, first)
	for {
		err := outcome(p.of.client.client.RawProduce(ctx, &kafka.RawProduceRequest{
			Topic: p.of.client.prefixed(at.topic), Partition: at.partition, RequiredAcks: kafka.RequireAll,
			RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(batch)},
		}))
		if tooLarge(err) && len(records) > 1 { // the same records come again, by smaller batches
			p.takeBack(at, first)
			return err
		}
		if err == nil || !passing(err) || !sleep(ctx, resendPause) {
			return err
		}
	}
}

// takeBack lets the numbers from first on be given again: the broker has not counted them,
// and the partition was asked for nothing else meanwhile.
func (p *producer) takeBack(at place, first int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[at] = first
}

// number is that of the first of n records; after the largest comes 0.
func (p *producer) number(at place, n int) int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.next[at]
	p.next[at] = int32((int64(first) + int64(n)) & math.MaxInt32)
	return first
}

// Where kafka-go, behind the size that it puts before it, writes what is signed of a
// record batch (version 2): the checksum, the attributes from which on it is
// taken, and producer id, epoch and first number, each -1.
const (
	checksumAt = 4 + 17
	summedFrom = checksumAt + 4
	producerAt = 4 + 43
)

func encode(records []kafka.Record) ([]byte, error) {
	var b bytes.Buffer
	set := protocol.RecordSet{Version: 2, Records: kafka.NewRecordReader(records...)}
	if _, err := set.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("encode %d records: %w", len(records), err)
	}
	return b.Bytes(), nil
}

func (p *producer) sign(batch []byte, first int32) {
	signed := batch[producerAt:producerAt]
	signed = binary.BigEndian.AppendUint64(signed, uint64(p.id))    //nolint:gosec // as the broker gave it
	signed = binary.BigEndian.AppendUint16(signed, uint16(p.epoch)) //nolint:gosec // as the broker gave it
	binary.BigEndian.AppendUint32(signed, uint32(first))            //nolint:gosec // never negative
	binary.BigEndian.PutUint32(batch[checksumAt:], crc32.Checksum(batch[summedFrom:], crc32.MakeTable(crc32.Castagnoli)))
}
