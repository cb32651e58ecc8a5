package readmodel

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// turnRows is how much of a feed one turn looks at.
const turnRows = 500

// Followers wakes those of a process who wait for events, with one statement a turn
// for all of them and none while there is nobody. It wakes and no more: each reads for
// himself, as fast as he can write, so that a slow one costs the others nothing.
type Followers struct {
	pool *pgxpool.Pool

	mu    sync.Mutex
	feeds map[string]*followed // by merchant
}

func NewFollowers(pool *pgxpool.Pool) *Followers {
	return &Followers{pool: pool, feeds: map[string]*followed{}}
}

// followed is a merchant's feed up to a position that every follower of it has been
// woken for, or has come after; looked is false until that is known. anchor is the event
// at the position, if it was seen.
type followed struct {
	position int64
	looked   bool
	anchor   anchor
	// By payment; under the empty id, those of the whole feed.
	waiting map[string]map[chan struct{}]bool
	count   int
}

// Follow wakes when there may be events of the merchant's payment, or of all of them
// with an empty paymentID, that were not there to be read when Follow was called. It
// may wake for nothing. stop has to be called.
func (f *Followers) Follow(merchantID, paymentID string) (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	feed := f.feeds[merchantID]
	if feed == nil {
		feed = &followed{waiting: map[string]map[chan struct{}]bool{}}
		f.feeds[merchantID] = feed
	}
	if feed.waiting[paymentID] == nil {
		feed.waiting[paymentID] = map[chan struct{}]bool{}
	}
	feed.waiting[paymentID][c] = true
	feed.count++
	return c, sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(feed.waiting[paymentID], c)
		if len(feed.waiting[paymentID]) == 0 {
			delete(feed.waiting, paymentID)
		}
		if feed.count--; feed.count == 0 {
			delete(f.feeds, merchantID)
		}
	})
}

type anchor struct {
	paymentID string
	sequence  int64
}

func (f *followed) wakeAll() {
	for paymentID := range f.waiting {
		f.wake(paymentID)
	}
}

func (f *followed) wake(paymentID string) {
	for c := range f.waiting[paymentID] {
		select {
		case c <- struct{}{}:
		default: // it has not yet come to the last one
		}
	}
}

// RunOnce wakes whoever waits for what was found since the last one; more means that it
// has not looked at all of it. When a feed's head has moved backwards, or another event
// stands where the last one was seen, the database has come back without its last
// commits: then everybody who follows the feed is woken, and finds out by reading whether
// his cursor still holds.
func (f *Followers) RunOnce(ctx context.Context) (more, found bool, err error) {
	merchants, positions, unknown := f.stand()
	if len(unknown) > 0 {
		if err := f.begin(ctx, unknown); err != nil {
			return false, false, err
		}
	}
	if len(merchants) == 0 {
		return false, false, nil
	}
	rows, err := f.pool.Query(ctx, `
		SELECT w.merchant_id, w.position, coalesce(h.position, 0), coalesce(f.position, 0), coalesce(f.payment_id, ''), coalesce(f.sequence, 0)
		FROM unnest($1::text[], $2::bigint[]) AS w (merchant_id, position) LEFT JOIN feed_heads h USING (merchant_id) LEFT JOIN LATERAL (
			SELECT position, payment_id, sequence FROM feed_events f
			WHERE f.merchant_id = w.merchant_id AND f.position >= w.position ORDER BY f.position LIMIT $3 + 1) f ON true`, merchants, positions, turnRows)
	if err != nil {
		return false, false, fmt.Errorf("look for events: %w", err)
	}
	type seen struct {
		MerchantID            string
		After, Head, Position int64
		PaymentID             string
		Sequence              int64
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[seen])
	if err != nil {
		return false, false, fmt.Errorf("look for events: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	looked := map[string]int{}
	for _, e := range events {
		feed := f.feeds[e.MerchantID]
		if feed == nil || !feed.looked {
			continue // it has been left, and perhaps taken up anew, or has moved backwards
		}
		at := anchor{e.PaymentID, e.Sequence}
		switch {
		case e.Head < e.After, e.Position == e.After && e.Position > 0 && feed.anchor != (anchor{}) && feed.anchor != at:
			feed.looked, feed.anchor, found = false, anchor{}, true // begin wakes all
		case e.Position == e.After:
			if e.Position > 0 && feed.position == e.After {
				feed.anchor = at
			}
		case e.Position > feed.position:
			feed.position, feed.anchor, found = e.Position, at, true
			feed.wake("")
			feed.wake(e.PaymentID)
			looked[e.MerchantID]++
			more = more || looked[e.MerchantID] == turnRows
		}
	}
	return more, found, nil
}

func (f *Followers) stand() (merchants []string, positions []int64, unknown []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for merchantID, feed := range f.feeds {
		if !feed.looked {
			unknown = append(unknown, merchantID)
			continue
		}
		merchants, positions = append(merchants, merchantID), append(positions, feed.position)
	}
	return merchants, positions, unknown
}

// begin looks at feeds that somebody has begun to follow. What has come since he read
// is behind the head: he is woken once for it.
func (f *Followers) begin(ctx context.Context, merchants []string) error {
	rows, err := f.pool.Query(ctx, `SELECT merchant_id, position FROM feed_heads WHERE merchant_id = ANY ($1)`, merchants)
	if err != nil {
		return fmt.Errorf("look at heads: %w", err)
	}
	heads := map[string]int64{}
	var merchantID string
	var position int64
	if _, err := pgx.ForEachRow(rows, []any{&merchantID, &position}, func() error {
		heads[merchantID] = position
		return nil
	}); err != nil {
		return fmt.Errorf("look at heads: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, merchantID := range merchants {
		feed := f.feeds[merchantID]
		if feed == nil {
			continue
		}
		feed.position, feed.looked = heads[merchantID], true
		feed.wakeAll()
	}
	return nil
}
