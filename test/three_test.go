package test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"payments/internal/devstack/devtest"
)

// Three processes share all the work. One is killed, one is stopped past its
// leases and goes on, the broker is restarted meanwhile: nothing is lost, each
// order's events come to the topic in sequence, and the audit is clean.
func TestThreeProcessesOneKilledOneStopped(t *testing.T) {
	if os.Getenv("PAYMENTS_TEST_KAFKA_BROKERS") == "" { // else it is the broker of the other tests too
		t.Parallel()
	}
	broker := devtest.RestartableBroker(t)
	w := newWorld(t, parts{brokers: []string{broker.Addr()}})
	all := []*service{w.serve(nil), w.serve(nil), w.serve(nil)}
	sleeper, victim, survivor := all[0], all[1], all[2]
	await(t, settleWithin, func() string {
		for _, s := range all {
			if w.shards(s) == 0 {
				return s.name + " has no part of the outbox"
			}
		}
		return ""
	})
	l := w.load(random(t), survivor)
	await(t, settleWithin, func() string { return l.fewer(50) })

	if err := sleeper.command.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleeper.command.Process.Signal(syscall.SIGCONT) })
	victim.kill()
	began := time.Now()
	await(t, settleWithin, func() string {
		if n := w.shards(sleeper) + w.shards(victim); n > 0 {
			return strconv.FormatInt(n, 10) + " shards are a dead or stopped process's"
		}
		return ""
	})
	t.Logf("the outbox was taken over after %v", time.Since(began).Round(10*time.Millisecond))
	broker.Stop()
	victim.start()
	broker.Start()
	await(t, settleWithin, func() string {
		if n := w.count(`SELECT count(*) FROM sagas WHERE owner LIKE $1`, owned(sleeper)); n > 0 {
			return strconv.FormatInt(n, 10) + " sagas are the stopped process's"
		}
		return ""
	})
	if err := sleeper.command.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		s.awaitReady()
	}
	l.verify()
	w.inSequence(broker.Addr())
}

func owned(s *service) string { return "%:" + strconv.Itoa(s.command.Process.Pid) + ":%" }

// shards that the process owns and whose lease holds.
func (w *world) shards(s *service) int64 {
	w.t.Helper()
	return w.count(`
		SELECT count(*) FROM outbox_shards s JOIN outbox_relays r ON r.owner = s.owner
		WHERE s.owner LIKE $1 AND r.lease_until > now()`, owned(s))
}

// inSequence reads the whole topic: the first delivery of each order's events is 1, 2, 3 …
func (w *world) inSequence(broker string) {
	w.t.Helper()
	topic := w.vars["PAYMENTS_KAFKA_PREFIX"] + "payments.events.v1"
	conn, err := kafka.DialContext(w.t.Context(), "tcp", broker)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	partitions, err := conn.ReadPartitions(topic)
	if err != nil {
		w.t.Fatal(err)
	}
	newest, events, again := map[string]int64{}, int64(0), 0
	for _, p := range partitions {
		for _, m := range w.log(broker, topic, p.ID) {
			key, sequence := string(m.Key), int64(0)
			for _, h := range m.Headers {
				if h.Key == "ce_sequence" {
					if sequence, err = strconv.ParseInt(string(h.Value), 10, 64); err != nil {
						w.t.Fatal(err)
					}
				}
			}
			switch {
			case sequence == newest[key]+1:
				newest[key]++
				events++
			case sequence > newest[key]:
				w.t.Fatalf("%s of order %s comes after %d", h(sequence), key, newest[key])
			default:
				again++
			}
		}
	}
	if n := w.count(`SELECT count(*) FROM outbox`); events != n {
		w.t.Errorf("%d of %d events are in the topic", events, n)
	}
	w.t.Logf("%d events of %d orders in sequence, %d sent again", events, len(newest), again)
}

func h(sequence int64) string { return "sequence " + strconv.FormatInt(sequence, 10) }

// log is all of one partition.
func (w *world) log(broker, topic string, partition int) (messages []kafka.Message) {
	w.t.Helper()
	conn, err := kafka.DialLeader(w.t.Context(), "tcp", broker, topic, partition)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	first, last, err := conn.ReadOffsets()
	if err != nil {
		w.t.Fatal(err)
	}
	if first == last {
		return nil
	}
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: strings.Split(broker, ","), Topic: topic, Partition: partition, MaxWait: 100 * time.Millisecond})
	defer r.Close()
	for int64(len(messages)) < last-first {
		m, err := r.ReadMessage(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}
