package readmodel

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// told is the feed from a position on, as "pay_… 1".
func (w *world) told(merchantID string, after int64) (all []string) {
	w.t.Helper()
	events, err := w.queries.Feed(w.t.Context(), merchantID, FeedCursor{Position: after}, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, e := range events {
		if e.Position != after+int64(i)+1 {
			w.t.Errorf("position %d stands behind %d", e.Position, after+int64(i))
		}
		all = append(all, fmt.Sprint(e.Data.PaymentID, " ", e.Sequence))
	}
	return all
}

// The transaction that came second to a feed may not be seen before the first, or a
// reader would stand behind both and miss the first for good: it waits, also where the
// first comes to nothing.
func TestWhatDrawsItsPositionLaterIsSeenLater(t *testing.T) {
	for _, commits := range []bool{true, false} {
		w := newWorld(t)
		merchantID := w.merchant()
		first, second := w.order(merchantID), w.order(merchantID)
		a, err := w.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := NewProjector().Project(t.Context(), a, []inbox.Message{first.placed()}); err != nil {
			t.Fatal(err)
		}
		message, done := second.placed(), make(chan error, 1)
		go func() {
			done <- postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error { return NewProjector().Project(t.Context(), tx, []inbox.Message{message}) })
		}()
		for waits := false; !waits; {
			if err := w.pool.QueryRow(t.Context(), `
				SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				t.Fatalf("the second did not wait for the first: %v", err)
			default:
			}
		}
		if got := w.told(merchantID, 0); len(got) > 0 {
			t.Errorf("before any commit the feed has %q", got)
		}
		want := []string{second.ids.PaymentID + " 1"}
		if commits {
			want = append([]string{first.ids.PaymentID + " 1"}, want...)
			err = a.Commit(t.Context())
		} else {
			err = a.Rollback(t.Context())
		}
		if err = errors.Join(err, <-done); err != nil {
			t.Fatal(err)
		}
		same(t, "the feed", w.told(merchantID, 0), want)
	}
}

// Projectors of several partitions, some of whose transactions come to nothing and are
// tried again, and readers who go on behind what they have seen, all at once.
func TestReadersOfAFeedMissNothing(t *testing.T) {
	const partitions, orders = 4, 25
	w := newWorld(t)
	merchants := []string{w.merchant(), w.merchant(), w.merchant()}
	random := rand.New(rand.NewPCG(1, 2))
	var topics [partitions][]inbox.Message
	want := map[string]int{}
	for p := range topics {
		for range orders {
			m := merchants[random.IntN(len(merchants))]
			topics[p] = append(topics[p], w.order(m).succeeded()...)
			want[m] += 5
		}
	}
	refused := errors.New("refused")
	var working sync.WaitGroup
	for p, topic := range topics {
		dice := rand.New(rand.NewPCG(3, uint64(p)))
		working.Go(func() {
			for len(topic) > 0 {
				n := min(1+dice.IntN(7), len(topic))
				err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
					err := NewProjector().Project(t.Context(), tx, topic[:n])
					if err == nil && dice.IntN(4) == 0 {
						err = refused
					}
					return err
				})
				if err == nil {
					topic = topic[n:]
				} else if !errors.Is(err, refused) {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, m := range merchants {
		working.Go(func() {
			last := map[string]int64{}
			for at := int64(0); at < int64(want[m]) && !t.Failed(); {
				events, err := w.queries.Feed(t.Context(), m, FeedCursor{Position: at}, 10)
				if err != nil {
					t.Error(err)
				}
				for _, e := range events {
					if e.Position != at+1 || e.Sequence != last[e.Data.PaymentID]+1 || e.Data.MerchantID != m {
						t.Errorf("behind position %d comes %d, with sequence %d behind %d", at, e.Position, e.Sequence, last[e.Data.PaymentID])
					}
					at, last[e.Data.PaymentID] = e.Position, e.Sequence
				}
			}
		})
	}
	working.Wait()
	for _, m := range merchants {
		if got := len(w.told(m, 0)); got != want[m] {
			t.Errorf("the feed has %d events in the end, want %d", got, want[m])
		}
	}
}

// A rebuild may write a line before the projector comes to its event, and must not take
// the event from the feed; what the projector applied comes into it once, however often it is handed on.
func TestAnEventIsFedOnce(t *testing.T) {
	w := newWorld(t)
	merchantID := w.merchant()
	l := w.order(merchantID)
	events := l.succeeded()
	handle := func(p *Projector, batch ...inbox.Message) {
		t.Helper()
		if err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error { return p.Project(t.Context(), tx, batch) }); err != nil {
			t.Fatal(err)
		}
	}
	handle(NewProjector(), events[:2]...)
	handle(&Projector{}, events[:4]...) // the rebuild
	same(t, "the feed after the rebuild", len(w.told(merchantID, 0)), 2)
	handle(NewProjector(), events[1:3]...)
	handle(NewProjector(), events...)
	handle(NewProjector(), events...)
	var want []string
	for i := range events {
		want = append(want, fmt.Sprint(l.ids.PaymentID, " ", i+1))
	}
	same(t, "the feed", w.told(merchantID, 0), want)
	if _, err := w.queries.Feed(t.Context(), merchantID, FeedCursor{Position: 6}, 10); !errors.Is(err, ErrFeedExpired) {
		t.Errorf("beyond the head: %v", err)
	}
}

func TestReapingKeepsAFeedWhole(t *testing.T) {
	w := newWorld(t)
	merchantID, other := w.merchant(), w.merchant()
	w.apply(w.order(merchantID).succeeded()...)
	w.apply(w.order(other).succeeded()...)
	// The second is younger than what stands behind it: a transaction that began later and committed first.
	if _, err := w.pool.Exec(t.Context(), `UPDATE feed_events SET fed_at = now() - interval '2 hours' WHERE merchant_id = $1 AND position IN (1, 3, 4)`, merchantID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if again, err := ReapFeeds(t.Context(), w.pool, 3600e9, 10); again || err != nil {
			t.Fatal(again, err)
		}
	}
	same(t, "the rest", len(w.told(merchantID, 1)), 4)
	same(t, "the other's", len(w.told(other, 0)), 5)
	if _, err := w.queries.Feed(t.Context(), merchantID, FeedCursor{}, 10); !errors.Is(err, ErrFeedExpired) {
		t.Errorf("behind what is kept: %v", err)
	}
	if _, err := w.pool.Exec(t.Context(), `UPDATE feed_events SET fed_at = now() - interval '2 hours'`); err != nil {
		t.Fatal(err)
	}
	for again := true; again; {
		var err error
		if again, err = ReapFeeds(t.Context(), w.pool, 3600e9, 2); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "at the head of an empty feed", len(w.told(merchantID, 5)), 0)
	if _, err := w.queries.Feed(t.Context(), merchantID, FeedCursor{Position: 4}, 10); !errors.Is(err, ErrFeedExpired) {
		t.Errorf("an empty feed, before its head: %v", err)
	}
}

// A turn wakes those whom what has come concerns, also where it came before the first
// look at their feed, and nobody else.
func TestAFollowerIsWokenForWhatComes(t *testing.T) {
	w := newWorld(t)
	merchantID := w.merchant()
	first, second, other := w.order(merchantID), w.order(merchantID), w.order(w.merchant())
	f := NewFollowers(w.pool)
	wakes := map[string]<-chan struct{}{}
	for name, l := range map[string]*life{"first": first, "second": second, "other": other} {
		wake, stop := f.Follow(l.ids.MerchantID, l.ids.PaymentID)
		wakes[name] = wake
		t.Cleanup(stop)
	}
	var leave func()
	wakes["feed"], leave = f.Follow(merchantID, "")
	woken := func(what string, want ...string) {
		t.Helper()
		if _, _, err := f.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, wake := range wakes {
			got := false
			select {
			case <-wake:
				got = true
			default:
			}
			if got != slices.Contains(want, name) {
				t.Errorf("%s: %s woken: %v", what, name, got)
			}
		}
	}
	w.apply(first.placed())
	woken("the first turn", "first", "second", "other", "feed")
	woken("nothing has come")
	w.apply(second.placed())
	woken("of the second", "second", "feed")
	w.apply(first.event(payment.EventStockReserved, payment.StatusProcessing, nil), other.placed())
	woken("of two merchants", "first", "feed", "other")
	leave()
	w.apply(second.event(payment.EventStockReserved, payment.StatusProcessing, nil))
	woken("the feed was left", "second")
}
