package webhook

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// conclusion is an attempt on its way to the record.
type conclusion struct {
	claimed
	attempt Attempt
	state   State
	wait    time.Duration // until the next attempt, while pending
	done    chan struct{}
	err     error
}

// settle says what becomes of the delivery.
func (c *conclusion) settle() {
	c.state = Failed
	switch c.attempt.Outcome {
	case OutcomeSucceeded:
		c.state = Succeeded
	case OutcomeGone:
	case OutcomeRefused, OutcomeTimeout, OutcomeUnreachable, OutcomeBlocked:
		if c.wait = pause(c.tries + 1); c.wait > 0 {
			c.state = Pending
		}
	}
}

// ended collects conclusions while others are being recorded, so that one
// transaction takes many.
type ended struct {
	mu      sync.Mutex
	writing bool
	waiting []*conclusion
}

const (
	maxBatch     = 100
	writes       = 3 // of a record that the database is too busy to take
	writeTimeout = 5 * time.Second
)

// conclude returns once the attempt is recorded, by this goroutine or another.
func (d *Dispatcher) conclude(ctx context.Context, c *conclusion) error {
	c.settle()
	c.done = make(chan struct{})
	d.ended.mu.Lock()
	d.ended.waiting = append(d.ended.waiting, c)
	if d.ended.writing {
		d.ended.mu.Unlock()
		<-c.done
		return c.err
	}
	d.ended.writing = true
	for len(d.ended.waiting) > 0 {
		n := min(len(d.ended.waiting), maxBatch)
		batch := d.ended.waiting[:n:n]
		d.ended.waiting = d.ended.waiting[n:]
		d.ended.mu.Unlock()
		err := d.write(ctx, batch)
		for _, b := range batch {
			b.err = err
			close(b.done)
		}
		d.ended.mu.Lock()
	}
	d.ended.writing = false
	d.ended.mu.Unlock()
	return c.err
}

func (d *Dispatcher) write(ctx context.Context, batch []*conclusion) (err error) {
	for range writes {
		if err = d.tryWrite(ctx, batch); err == nil || !postgres.Unavailable(err) {
			break
		}
	}
	return err
}

func (d *Dispatcher) tryWrite(ctx context.Context, batch []*conclusion) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var held []*conclusion
	var disabled map[string]int
	err := postgres.InTx(ctx, d.pool, func(tx pgx.Tx) (err error) {
		if held, err = d.record(ctx, tx, batch); err != nil || len(held) == 0 {
			return err
		}
		disabled, err = d.judge(ctx, tx, held)
		return err
	})
	if err != nil {
		return err
	}
	d.metrics.fenced.Add(float64(len(batch) - len(held)))
	for _, c := range held {
		result := string(c.state)
		if c.state == Pending {
			result = "retried"
		}
		d.metrics.deliveries.WithLabelValues(result).Inc()
	}
	for reason, n := range disabled {
		d.metrics.disabledTotal.WithLabelValues(reason).Add(float64(n))
	}
	return nil
}

// record is the fence: it writes the attempts of the deliveries whose epoch is
// still this dispatcher's, and gives those.
func (d *Dispatcher) record(ctx context.Context, tx pgx.Tx, batch []*conclusion) (held []*conclusion, err error) {
	var merchants, ids, states, outcomes, details []string
	var epochs []int64
	var waits []float64
	var statuses, durations []int32
	var started []time.Time
	for _, c := range batch {
		a := c.attempt
		merchants, ids, states, epochs, waits = append(merchants, c.merchantID), append(ids, c.id), append(states, string(c.state)), append(epochs, c.epoch), append(waits, c.wait.Seconds())
		outcomes, details, statuses = append(outcomes, string(a.Outcome)), append(details, a.Detail), append(statuses, int32(a.Status)) //nolint:gosec // three digits
		durations, started = append(durations, int32(max(a.Duration, 0).Milliseconds())), append(started, a.StartedAt)                  //nolint:gosec // bounded by attemptTimeout
	}
	rows, err := tx.Query(ctx, `
		WITH concluded AS (
			UPDATE webhook_deliveries d SET owner = NULL, attempts = d.attempts + 1, tries = d.tries + 1, state = v.state,
				due_at = CASE WHEN v.state = 'pending' THEN clock_timestamp() + make_interval(secs => v.wait) END,
				settled_at = CASE WHEN v.state <> 'pending' THEN clock_timestamp() END
			FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::float8[], $6::text[], $7::text[], $8::int[], $9::int[], $10::timestamptz[])
				AS v (merchant_id, id, epoch, state, wait, outcome, detail, status, duration_ms, started_at)
			WHERE d.merchant_id = v.merchant_id AND d.id = v.id AND d.epoch = v.epoch AND d.owner = $11
			RETURNING d.merchant_id, d.id, d.attempts, v.started_at, v.duration_ms, v.status, v.outcome, v.detail
		)
		INSERT INTO webhook_attempts (merchant_id, delivery_id, number, started_at, duration_ms, status, outcome, detail)
		SELECT merchant_id, id, attempts, started_at, duration_ms, nullif(status, 0), outcome, detail FROM concluded
		RETURNING delivery_id`,
		merchants, ids, epochs, states, waits, outcomes, details, statuses, durations, started, d.Owner)
	if err != nil {
		return nil, fmt.Errorf("record attempts: %w", err)
	}
	written, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("record attempts: %w", err)
	}
	for _, c := range batch {
		if slices.Contains(written, c.id) {
			held = append(held, c)
		}
	}
	return held, nil
}

// endpointHealth is what a batch's attempts, in their order, say about an endpoint.
type endpointHealth struct {
	merchantID, id string
	reset          bool // one has succeeded
	failing        bool // the last one has not
	exhausted      int  // deliveries that failed for good since the last success
	gone           bool
}

// judge changes the endpoints for which the attempts change anything: most
// batches touch none.
func (d *Dispatcher) judge(ctx context.Context, tx pgx.Tx, held []*conclusion) (disabled map[string]int, err error) {
	all := map[string]*endpointHealth{}
	for _, c := range held {
		s := all[c.endpointID]
		if s == nil {
			s = &endpointHealth{merchantID: c.merchantID, id: c.endpointID}
			all[c.endpointID] = s
		}
		if c.state == Succeeded {
			*s = endpointHealth{merchantID: s.merchantID, id: s.id, reset: true, gone: s.gone}
			continue
		}
		s.failing = true
		s.gone = s.gone || c.attempt.Outcome == OutcomeGone
		if c.state == Failed {
			s.exhausted++
		}
	}
	var merchants, ids []string
	var resets, failing, gone []bool
	var exhausted []int32
	// In one order for all, so that two dispatchers cannot deadlock.
	for _, s := range slices.SortedFunc(maps.Values(all), func(a, b *endpointHealth) int { return cmp.Compare(a.id, b.id) }) {
		merchants, ids = append(merchants, s.merchantID), append(ids, s.id)
		resets, failing, gone, exhausted = append(resets, s.reset), append(failing, s.failing), append(gone, s.gone), append(exhausted, int32(s.exhausted)) //nolint:gosec // at most maxBatch
	}
	rows, err := tx.Query(ctx, `
		WITH changed AS (
			SELECT e.merchant_id, e.id, CASE WHEN v.reset THEN 0 ELSE e.exhausted END + v.exhausted AS exhausted,
				CASE WHEN v.failing THEN coalesce(CASE WHEN NOT v.reset THEN e.failing_since END, now())
					WHEN NOT v.reset THEN e.failing_since END AS failing_since, v.gone
			FROM webhook_endpoints e
			JOIN unnest($1::text[], $2::text[], $3::bool[], $4::bool[], $5::bool[], $6::int[]) AS v (merchant_id, id, reset, failing, gone, exhausted)
				ON e.merchant_id = v.merchant_id AND e.id = v.id
			WHERE v.gone OR v.exhausted > 0 OR v.failing AND e.failing_since IS NULL OR v.reset AND (e.failing_since IS NOT NULL OR e.exhausted > 0)
			ORDER BY e.id FOR NO KEY UPDATE OF e
		)
		UPDATE webhook_endpoints e SET exhausted = c.exhausted, failing_since = c.failing_since, updated_at = now(),
			disabled_at = coalesce(e.disabled_at, CASE WHEN c.gone OR c.exhausted >= $7 THEN now() END),
			disabled_reason = coalesce(e.disabled_reason, CASE WHEN c.gone THEN 'gone' WHEN c.exhausted >= $7 THEN 'failing' END)
		FROM changed c WHERE e.merchant_id = c.merchant_id AND e.id = c.id
		RETURNING e.merchant_id, e.id, CASE WHEN e.disabled_at = now() THEN e.disabled_reason ELSE '' END`,
		merchants, ids, resets, failing, gone, exhausted, d.MaxExhausted)
	if err != nil {
		return nil, fmt.Errorf("judge endpoints: %w", err)
	}
	disabled = map[string]int{}
	var merchantID, id, reason string
	_, err = pgx.ForEachRow(rows, []any{&merchantID, &id, &reason}, func() error {
		if reason != "" {
			disabled[reason]++
			d.Log.WarnContext(ctx, "webhook endpoint disabled", "merchant", merchantID, "endpoint", id, "reason", reason)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("judge endpoints: %w", err)
	}
	return disabled, nil
}
