package test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// Partitions are added to the events topic while payments are under way. Half of the orders move to
// another partition. The consumers come back after the relay, with events of the same order in
// two partitions before them, and apply each order's events in sequence.
func TestOrderIsRestoredAfterPartitionsAreAdded(t *testing.T) {
	t.Parallel()
	long(t)
	const before, after = 6, 12
	w := newWorld(t, parts{})
	s := w.serve(map[string]string{"PAYMENTS_ROLES": "api,saga,reports"})
	relays := map[string]string{"PAYMENTS_ROLES": "relay"}
	relay := w.serve(relays)
	consumes := map[string]string{"PAYMENTS_ROLES": "projector,webhooks"}
	consumers := w.serve(consumes)
	l := w.load(random(t), s)
	await(t, settleWithin, func() string { return l.fewer(20) })
	w.consumed()
	if code := consumers.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}
	// Orders that will move are authorized, and captured after the partitions were added.
	const moving = 5
	w.fault(`{"kind": "outage", "operation": "capture", "seconds": 600}`)
	await(t, settleWithin, func() string {
		if n := w.count(`
			SELECT count(*) FROM (
				SELECT FROM outbox o JOIN outbox_cursors c ON c.shard = o.key_hash % $1 WHERE o.key_hash % $1 <> o.key_hash % $2
				GROUP BY o.key HAVING count(*) = 3 AND bool_or(outbox_header(o.headers, 'ce_type') = 'payment.authorized')
					AND bool_and(pg_visible_in_snapshot(o.xid, c.done))) k`, before, after); n < moving {
			return "only " + decimal(n) + " orders that will move are authorized and published"
		}
		return ""
	})
	if code := relay.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}

	if n := w.partitions(); n != before {
		t.Fatalf("the topic has %d partitions", n)
	}
	w.addsPartitions(after)
	w.vars["PAYMENTS_KAFKA_PARTITIONS"] = decimal(after)
	relay.lives(relays)
	w.heal()
	await(t, settleWithin, func() string {
		if n := w.movedOrders(before); n < moving {
			return "only " + decimal(n) + " orders have events in an old partition and in a new one"
		}
		return ""
	})
	consumers.lives(consumes)
	l.verify()
	w.must("audit", "-settled", "-kafka")
	if n := strings.Count(w.must("outbox", "status"), "yes\n"); n != after {
		t.Errorf("the outbox has %d proven shards: %s", n, w.must("outbox", "status"))
	}
}

// The events topic is deleted, and made anew under its name. Payments are accepted meanwhile.
func TestADeletedTopicIsRestoredFromTheOutbox(t *testing.T) {
	t.Parallel()
	long(t)
	w := newWorld(t, parts{})
	s := w.serve(map[string]string{"PAYMENTS_ROLES": "api,saga,reports"})
	kafkas := map[string]string{"PAYMENTS_ROLES": "relay,projector,webhooks"}
	k := w.serve(kafkas)
	l := w.load(random(t), s)
	await(t, settleWithin, func() string { return l.fewer(20) })
	oldest := time.Now().AddDate(0, 0, -1).UTC().Format(time.RFC3339)

	if code := k.end(syscall.SIGTERM); code != 0 {
		t.Fatal(code)
	}
	w.deletesTopic()
	more := l.count() + 10 // payments are accepted without a topic
	await(t, settleWithin, func() string { return l.fewer(more) })
	w.must("outbox", "reset", "-from", oldest)
	k.lives(kafkas)
	more = l.count() + 10
	await(t, settleWithin, func() string { return l.fewer(more) })
	l.verify()
	w.must("audit", "-settled", "-kafka")
}

// addsPartitions is `kafka-topics.sh --alter`.
func (w *world) addsPartitions(n int) {
	w.t.Helper()
	c, topic := w.kafka()
	res, err := c.CreatePartitions(w.t.Context(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: int32(n)}}})
	if err == nil {
		err = res.Errors[topic]
	}
	if err != nil {
		w.t.Fatal(err)
	}
	await(w.t, settleWithin, func() string {
		if have := w.partitions(); have != n {
			return "the topic has " + decimal(int64(have)) + " partitions"
		}
		return ""
	})
}

// deletesTopic is `kafka-topics.sh --delete`.
func (w *world) deletesTopic() {
	w.t.Helper()
	c, topic := w.kafka()
	res, err := c.DeleteTopics(w.t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err == nil {
		err = res.Errors[topic]
	}
	if err != nil {
		w.t.Fatal(err)
	}
	await(w.t, settleWithin, func() string {
		if w.partitions() > 0 {
			return "the topic is still there"
		}
		return ""
	})
}

// movedOrders counts the orders of which an event is in a partition from n on and another is before it.
func (w *world) movedOrders(n int) (moved int64) {
	w.t.Helper()
	c, topic := w.kafka()
	ends, err := w.logEnds()
	if err != nil {
		w.t.Fatal(err)
	}
	sides := map[string][2]bool{}
	for partition, end := range ends {
		for at := int64(0); at < end; {
			records, err := w.read(c, topic, partition, at, end)
			if err != nil || len(records) == 0 {
				w.t.Fatalf("partition %d, offset %d of %d: %v", partition, at, end, err)
			}
			for _, r := range records {
				key, err := kafka.ReadAll(r.Key)
				if err != nil {
					w.t.Fatal(err)
				}
				side := sides[string(key)]
				side[min(partition/n, 1)] = true
				sides[string(key)] = side
			}
			at = records[len(records)-1].Offset + 1
		}
	}
	for _, side := range sides {
		if side[0] && side[1] {
			moved++
		}
	}
	return moved
}
