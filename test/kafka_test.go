package test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

const eventTopic = "payments.events.v1"

// kafka asks the world's broker for what no subcommand asks. It gives the events topic's full name, too.
func (w *world) kafka() (c *kafka.Client, topic string) {
	transport := &kafka.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{
		Addr: kafka.TCP(strings.Split(w.vars["PAYMENTS_KAFKA_BROKERS"], ",")...), Transport: transport,
	}, w.vars["PAYMENTS_KAFKA_PREFIX"] + eventTopic
}

// partitions of the events topic; 0 while there is none.
func (w *world) partitions() int {
	w.t.Helper()
	c, topic := w.kafka()
	m, err := c.Metadata(w.t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
	if err == nil {
		err = m.Topics[0].Error
	}
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		return 0
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return len(m.Topics[0].Partitions)
}

// logEnds are the offsets after the newest event of each partition.
func (w *world) logEnds() ([]int64, error) {
	c, topic := w.kafka()
	ends := make([]int64, w.partitions())
	asked := make([]kafka.OffsetRequest, len(ends))
	for partition := range ends {
		asked[partition] = kafka.LastOffsetOf(partition)
	}
	res, err := c.ListOffsets(w.t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: asked}})
	if err != nil {
		return nil, err
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		ends[p.Partition] = p.LastOffset
	}
	return ends, nil
}

// consumed awaits that the projector has applied all that the broker has.
func (w *world) consumed() {
	w.t.Helper()
	await(w.t, settleWithin, func() string {
		ends, err := w.logEnds()
		if err != nil {
			return err.Error()
		}
		for partition, end := range ends {
			var next int64
			if err := w.scan(`SELECT coalesce(max(next_offset), 0) FROM inbox_offsets WHERE consumer = 'payment_view' AND partition = $1`, []any{partition}, &next); err != nil {
				return err.Error()
			}
			if next < end {
				return fmt.Sprintf("partition %d is consumed to %d of %d", partition, next, end)
			}
		}
		return ""
	})
}

// restoresLog leads the world to a topic that has the old one's events before the ends and
// no others, as a restored broker does.
func (w *world) restoresLog(ends []int64) {
	w.t.Helper()
	c, old := w.kafka()
	w.vars["PAYMENTS_KAFKA_PREFIX"] += "restored."
	_, restored := w.kafka()
	created, err := c.CreateTopics(w.t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: restored, NumPartitions: len(ends), ReplicationFactor: 1}}})
	if err == nil {
		err = created.Errors[restored]
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for partition, end := range ends {
		for at := int64(0); at < end; {
			records, err := w.read(c, old, partition, at, end)
			if err != nil {
				w.t.Fatal(err)
			}
			if len(records) == 0 {
				w.t.Fatalf("partition %d has nothing at offset %d of %d", partition, at, end)
			}
			at = records[len(records)-1].Offset + 1
			res, err := c.Produce(w.t.Context(), &kafka.ProduceRequest{
				Topic: restored, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
			})
			if err == nil {
				err = res.Error
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// read gives the partition's records from one offset on and before another, as far as one answer goes.
func (w *world) read(c *kafka.Client, topic string, partition int, from, to int64) (records []kafka.Record, err error) {
	res, err := c.Fetch(w.t.Context(), &kafka.FetchRequest{Topic: topic, Partition: partition, Offset: from, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
	if err == nil {
		err = res.Error
	}
	for err == nil {
		var r *kafka.Record
		if r, err = res.Records.ReadRecord(); err != nil || r.Offset < from || r.Offset >= to {
			continue
		}
		kept := *r
		if kept.Key, err = copied(r.Key); err == nil {
			kept.Value, err = copied(r.Value)
		}
		records = append(records, kept)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return records, err
}

// copied outlives the answer that the bytes are part of.
func copied(b kafka.Bytes) (kafka.Bytes, error) {
	all, err := kafka.ReadAll(b)
	return kafka.NewBytes(all), err
}
