package readmodel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"payments/internal/inbox"
	"payments/internal/payment"
)

func on(partition int, ms ...inbox.Message) []inbox.Message {
	for i := range ms {
		ms[i].Partition = partition
	}
	return ms
}

// The write database fails over to a replica that lacks the last commits (or is restored to a moment ago) after their
// events were published. The order goes on at the sequence that it has there, and ends otherwise.
func TestAnotherHistoryAtTheSameSequencesBlocksTheKey(t *testing.T) {
	w := newWorld(t)
	l, fine := w.order(w.merchant()), w.order(w.merchant())
	w.apply(l.placed(), l.event(payment.EventStockReserved, payment.StatusProcessing, nil))
	// Published, and lost with the primary:
	w.apply(l.event(payment.EventPaymentAuthorized, payment.StatusProcessing, nil), l.event(payment.EventPaymentVoided, payment.StatusProcessing, nil),
		l.event(payment.EventStockReleased, payment.StatusProcessing, nil), l.event(payment.EventOrderCanceled, payment.StatusCanceled, nil))
	// What the write model that is left does and says, with ids of its own:
	l.sequence = 2
	w.apply(l.event(payment.EventPaymentAuthorized, payment.StatusProcessing, nil), fine.placed(),
		l.event(payment.EventPaymentCaptured, payment.StatusProcessing, func(d *payment.EventData) {
			d.Captured = &payment.CapturedData{Provider: "simulator", Operation: "op_2", Amount: 4998}
		}),
		l.event(payment.EventOrderConfirmed, payment.StatusSucceeded, nil))
	p := w.get(l)
	t.Logf("write model: succeeded at 5, 4998 captured. Read model: %s at %d, %d captured; dead letters: %q", p.Status, p.Sequence, p.AmountCaptured, w.deadLetters())
	if p.Status != payment.StatusSucceeded && len(w.deadLetters()) == 0 {
		t.Error("three events whose sequences are taken by other events were dropped as if they had been applied, and nobody is told")
	}
	if reasons := w.deadLetters(); len(reasons) != 3 || !strings.Contains(reasons[0], "two histories") {
		t.Errorf("dead letters: %q", reasons)
	}
	if got := w.get(fine); got.Sequence != 1 {
		t.Errorf("the other key: %+v", got)
	}
	groups, err := inbox.NewDeadLetters(w.pool, w.inbox).Groups(t.Context())
	if err != nil || len(groups) != 1 || groups[0].Fingerprint != "conflict" {
		t.Errorf("groups: %+v (%v)", groups, err)
	}
}

// Both histories may lie in one batch.
func TestTwoHistoriesInOneBatchBlockTheKey(t *testing.T) {
	w := newWorld(t)
	l := w.order(w.merchant())
	placed, lost := l.placed(), l.event(payment.EventStockReserved, payment.StatusProcessing, nil)
	l.sequence = 1
	w.apply(placed, lost, l.event(payment.EventStockRejected, payment.StatusProcessing, nil))
	if reasons := w.deadLetters(); len(reasons) != 1 || !strings.Contains(reasons[0], "two histories") {
		t.Errorf("dead letters: %q", reasons)
	}
}

// Partitions are added to the topic while an order is under way (EnsureTopic takes more partitions than are configured, the
// publisher looks them up anew after any error, and the group watches for them): the order's next event goes to another
// partition, whose pump may be ahead.
func TestAKeyThatMovedToAnotherPartitionClosesItsGapByItself(t *testing.T) {
	w := newWorld(t)
	l := w.order(w.merchant())
	first, second, third := on(0, l.placed()), on(0, l.event(payment.EventStockReserved, payment.StatusProcessing, nil)), on(1, l.event(payment.EventPaymentAuthorized, payment.StatusProcessing, nil))
	w.apply(first...)
	w.apply(third...)  // the new partition's pump is first
	w.apply(second...) // what the old partition still had: waits behind the third
	same(t, "dead letters", w.deadLetters(), []string{})
	if got := w.get(l).Sequence; got != 3 {
		t.Errorf("the row is at %d of 3, all three events are here, and a replay will never apply them", got)
	}
}

// Events of many orders that moved, in any order over the partitions, in batches of all
// of them: every order comes to its end, and its feed tells its events in order.
func TestOrdersThatMovedOverPartitionsInAnyOrderComeToTheirEnd(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 17))
			w := newWorld(t)
			merchantID := w.merchant()
			var topic [3][]inbox.Message
			var lives []*life
			for range 12 {
				l := w.order(merchantID)
				lives = append(lives, l)
				for _, m := range l.succeeded() {
					p := random.IntN(3)
					m.Partition, m.Offset = p, int64(len(topic[p]))
					topic[p] = append(topic[p], m)
				}
			}
			for slices.ContainsFunc(topic[:], func(rest []inbox.Message) bool { return len(rest) > 0 }) {
				var batches [][]inbox.Message
				for p := range topic {
					if n := random.IntN(6); n > 0 && len(topic[p]) > 0 {
						n = min(n, len(topic[p]))
						batches = append(batches, topic[p][:n])
						topic[p] = topic[p][n:]
					}
				}
				for i, taken := range w.inbox.ApplyAll(t.Context(), 1, batches) {
					if taken.Err != nil || taken.N != len(batches[i]) {
						t.Fatalf("%+v", taken)
					}
				}
			}
			same(t, "dead letters", w.deadLetters(), []string{})
			for _, l := range lives {
				if got := w.get(l); got.Sequence != 5 || got.Status != payment.StatusSucceeded {
					t.Errorf("%s at %d", got.Status, got.Sequence)
				}
			}
			last := map[string]int64{}
			events, err := w.queries.Feed(t.Context(), merchantID, FeedCursor{}, 1000)
			if err != nil || len(events) != 60 {
				t.Fatal(len(events), err)
			}
			for _, e := range events {
				if e.Sequence != last[e.Data.PaymentID]+1 {
					t.Errorf("the feed tells %d after %d", e.Sequence, last[e.Data.PaymentID])
				}
				last[e.Data.PaymentID] = e.Sequence
			}
		})
	}
}

// What was missing and what waits for it come at the same time, to two processes: neither
// transaction sees the other.
func TestAGapWhoseEventsCameAtTheSameTimeIsClosed(t *testing.T) {
	w := newWorld(t)
	l := w.order(w.merchant())
	events := l.succeeded()[:3]
	w.apply(events[0])
	w.apply(on(1, events[2])...)
	// As the other process leaves it: applied, and blind to the key that was blocked meanwhile.
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := NewProjector().Project(t.Context(), tx, events[1:2]); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if closed, err := w.inbox.CloseGaps(t.Context()); closed != 1 || err != nil {
		t.Errorf("%d closed: %v", closed, err)
	}
	if got := w.get(l).Sequence; got != 3 {
		t.Errorf("the row is at %d", got)
	}
	same(t, "dead letters", w.deadLetters(), []string{})
}

// What the runbook says: a rebuild takes over the history that the write model has, and
// the events that waited are then its own.
func TestARebuildAndAReplayEndAConflict(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.seeded(4)
	var order, paymentID string
	var sequence int64
	if err := s.write.QueryRow(t.Context(), `
		SELECT o.id, p.id, o.sequence FROM orders o JOIN payments p ON p.order_id = o.id WHERE p.status = 'succeeded' LIMIT 1`).Scan(&order, &paymentID, &sequence); err != nil {
		t.Fatal(err)
	}
	// Published, and lost with the old primary.
	s.publish(inbox.Message{
		Key: []byte(order), Value: fmt.Appendf(nil, `{"merchant_id": %q, "order_id": %q, "payment_id": %q, "status": "succeeded"}`, s.merchant, order, paymentID),
		Headers: map[string]string{
			inbox.HeaderID: "evt_01m8714zasejprk4n4a49y2r89", inbox.HeaderSequence: fmt.Sprint(sequence + 1), "ce_type": "loyalty.credited", "ce_time": "2026-11-30T12:00:00Z",
		},
	})
	awaits(t, "the lost event", s.read, `SELECT $1 - sequence FROM payment_view WHERE order_id = $2`, sequence+1, order)
	s.refund() // the write model goes on with the same sequence
	s.rests()
	awaits(t, "the conflict", s.read, `SELECT 1 - count(*) FROM inbox_parked_keys WHERE fingerprint = 'conflict'`)
	if r, err := s.rebuild(func(c *RebuildConfig) { c.Accept = true }); err != nil || !r.Swapped {
		t.Fatalf("%+v: %v", r, err)
	}
	all, err := inbox.NewDeadLetters(s.read, s.projector()).ReplayAll(t.Context(), inbox.BlockedFilter{Fingerprint: "conflict"})
	if err != nil || len(all) != 1 || !all[0].Released {
		t.Fatalf("replay: %+v: %v", all, err)
	}
	if r, err := s.rebuild(); err != nil || r.Different != 0 || r.Behind != 0 {
		t.Errorf("a second rebuild: %+v: %v", r, err)
	}
	same(t, "dead letters", (&world{t: t, pool: s.read}).deadLetters(), []string{})
}
