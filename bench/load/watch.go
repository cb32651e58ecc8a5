package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// asked is how many payments one poll looks up at most.
const asked = 1024

// Watcher sees payments reach a final status in the read model. It reads the table itself over one
// connection, whose CPU time can be told from the service's (PID).
type Watcher struct {
	conn  *pgx.Conn
	every time.Duration
	pid   int

	mu      sync.Mutex
	waiting []waiting // oldest first
	cursor  int
}

type waiting struct {
	merchant, payment string
	done              func(at time.Time, status string)
}

// NewWatcher polls at this interval once it runs. The URL is the superuser's, so that its reads are
// not counted among the service's.
func NewWatcher(ctx context.Context, url string, every time.Duration) (*Watcher, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	w := &Watcher{conn: conn, every: every}
	// Without statistics the planner might read the whole table.
	_, err = conn.Exec(ctx, `SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off`)
	if err == nil {
		err = conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&w.pid)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return w, nil
}

// PID of the server process that answers the watcher.
func (w *Watcher) PID() int { return w.pid }

// Watch a payment: done is called once, with the time at which its final status was seen.
func (w *Watcher) Watch(merchant, payment string, done func(at time.Time, status string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, waiting{merchant, payment, done})
}

// Unfinished payments.
func (w *Watcher) Unfinished() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting)
}

// Settle waits until nothing is unfinished.
func (w *Watcher) Settle(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for w.Unfinished() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d payments are not in the read model %s after the load ended", w.Unfinished(), within)
		case <-tick.C:
		}
	}
	return nil
}

// Run polls until ctx ends, and closes the connection.
func (w *Watcher) Run(ctx context.Context) error {
	defer func() { _ = w.conn.Close(context.WithoutCancel(ctx)) }()
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := w.poll(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("watch the read model: %w", err)
			}
		}
	}
}

func (w *Watcher) poll(ctx context.Context) error {
	merchants, payments := w.batch()
	if len(payments) == 0 {
		return nil
	}
	rows, err := w.conn.Query(ctx, `
		SELECT v.payment_id, v.status FROM unnest($1::text[], $2::text[]) AS w (merchant_id, payment_id), LATERAL (
			SELECT payment_id, status FROM payment_view WHERE merchant_id = w.merchant_id AND payment_id = w.payment_id OFFSET 0) v
		WHERE v.status IN ('succeeded', 'failed', 'canceled', 'requires_review')`, merchants, payments)
	if err != nil {
		return err
	}
	final := map[string]string{}
	var payment, status string
	if _, err := pgx.ForEachRow(rows, []any{&payment, &status}, func() error {
		final[payment] = status
		return nil
	}); err != nil {
		return err
	}
	at := time.Now()
	for _, f := range w.remove(final) {
		f.done(at, final[f.payment])
	}
	return nil
}

// batch is the next payments in turn, all of them if there are few: old ones that hang do not hide
// the rest, and new ones do not hide the old.
func (w *Watcher) batch() (merchants, payments []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range min(asked, len(w.waiting)) {
		if w.cursor >= len(w.waiting) {
			w.cursor = 0
		}
		one := w.waiting[w.cursor]
		merchants, payments = append(merchants, one.merchant), append(payments, one.payment)
		w.cursor++
	}
	return merchants, payments
}

func (w *Watcher) remove(final map[string]string) (removed []waiting) {
	if len(final) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.waiting[:0]
	for n, one := range w.waiting {
		if _, ok := final[one.payment]; !ok {
			kept = append(kept, one)
			continue
		}
		removed = append(removed, one)
		if n < w.cursor {
			w.cursor--
		}
	}
	clear(w.waiting[len(kept):])
	w.waiting = kept
	return removed
}
