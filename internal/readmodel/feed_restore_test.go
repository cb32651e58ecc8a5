package readmodel

import (
	"errors"
	"testing"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// truncateRead is what a failover to a replica that lacks the last commits does, or a backup: every table of the
// read database goes back together (the feed's as well, which restore_test.go leaves out).
func (w *world) truncateRead() {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), `
		DELETE FROM payment_view; DELETE FROM payment_timeline; DELETE FROM refund_view; DELETE FROM payment_term; DELETE FROM inbox_messages;
		DELETE FROM inbox_offsets; DELETE FROM feed_events; DELETE FROM feed_heads`); err != nil {
		w.t.Fatal(err)
	}
	for partition := range 2 { // the group is joined anew, and each pump goes on where the row stands
		if at, err := w.inbox.Claim(w.t.Context(), payment.Topic, partition, 1, nil); err != nil || at.Next != -1 {
			w.t.Fatal(at, err)
		}
	}
}

// A read database that comes back without its last commits reads the log up again; its partitions
// need not come in the order of before. A client resumes behind the last id that it had.
func TestAFeedNeitherSkipsNorRepeatsAfterARestore(t *testing.T) {
	w := newWorld(t)
	m := w.merchant()
	a, b := w.order(m), w.order(m)
	a1, b1 := on(0, a.placed()), on(1, b.placed())
	w.apply(a1...)
	events, err := w.queries.Feed(t.Context(), m, FeedCursor{}, 10)
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	at := events[0].Cursor() // the client has been told a's order.placed under this id
	same(t, "the client has", w.told(m, 0), []string{a.ids.PaymentID + " 1"})
	w.apply(b1...) // position 2: the connection broke before the client was told

	w.truncateRead()
	w.apply(b1...) // partition 1 is first this time
	w.apply(a1...)
	if events, err := w.queries.Feed(t.Context(), m, at, 10); !errors.Is(err, ErrFeedExpired) { // Last-Event-ID
		t.Errorf("behind its Last-Event-ID the client is told %v (%v), and b's order.placed never", events, err)
	}
	head, err := w.queries.FeedHead(t.Context(), m)
	if err != nil || head.Position != 2 || head.EventID != a1[0].Headers[inbox.HeaderID] {
		t.Errorf("the head is %+v (%v)", head, err)
	}
}

// The write database went back, and another event has the sequence of the one that the client was told.
func TestAPaymentsStreamIsRefusedWhenItsEventIsGone(t *testing.T) {
	w := newWorld(t)
	l := w.order(w.merchant())
	w.apply(l.succeeded()[:3]...)
	events, err := w.queries.EventsOf(t.Context(), l.ids.MerchantID, l.ids.PaymentID, FeedCursor{}, 2)
	if err != nil || len(events) != 2 {
		t.Fatal(events, err)
	}
	at := events[1].Cursor()
	if rest, err := w.queries.EventsOf(t.Context(), l.ids.MerchantID, l.ids.PaymentID, at, 2); err != nil || len(rest) != 1 || rest[0].Sequence != 3 {
		t.Fatal(rest, err)
	}
	if _, err := w.pool.Exec(t.Context(), `UPDATE payment_timeline SET event_id = 'evt_other' WHERE sequence = 2`); err != nil {
		t.Fatal(err)
	}
	if rest, err := w.queries.EventsOf(t.Context(), l.ids.MerchantID, l.ids.PaymentID, at, 2); !errors.Is(err, ErrFeedExpired) {
		t.Errorf("behind an event that is gone: %v, %v", rest, err)
	}
}

// A process whose followers stood at position 7 looks behind 7 only. The whole log is read up again after the
// failover, and what had not been told before has come to stand below.
func TestAStreamIsWokenByWhatComesAfterARestore(t *testing.T) {
	for name, before := range map[string]bool{"a turn sees the feed short": true, "it is as long again before a turn": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := w.merchant()
			l := w.order(m)
			mine, others := on(0, l.succeeded()...), on(1, w.order(m).succeeded()...)
			f := NewFollowers(w.pool)
			wake, stop := f.Follow(m, l.ids.PaymentID)
			defer stop()
			turn := func() (woken bool) {
				t.Helper()
				if _, _, err := f.RunOnce(t.Context()); err != nil {
					t.Fatal(err)
				}
				select {
				case <-wake:
					return true
				default:
					return false
				}
			}
			w.apply(others...) // positions 1 to 5
			w.apply(mine[:2]...)
			turn()
			turn() // followers stand at 7, and the stream of the payment has been told 1 and 2
			if turn() {
				t.Error("woken without news")
			}
			w.truncateRead()
			if before {
				turn()
				turn()
			}
			w.apply(mine...) // all five, at positions 1 to 5: three are news, among them order.confirmed
			w.apply(others...)
			woken := false
			for range 50 {
				woken = turn() || woken
			}
			told, err := w.queries.EventsOf(t.Context(), m, l.ids.PaymentID, FeedCursor{Position: 2}, 10)
			if err != nil || len(told) != 3 {
				t.Fatal(told, err)
			}
			if !woken {
				t.Errorf("three events behind sequence 2 are there to be read (the last is %s), and the stream of the payment, which reads when woken, is not woken", told[2].Type)
			}
		})
	}
}
