package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// A transaction that makes a saga due may commit after a claim has passed the saga's
	// key. So a claim looks again at the keys of this time before the last one.
	claimMargin = 500 * time.Millisecond
	// A sweep finds what claims have passed: the saga of a worker that died, one that
	// another transaction had locked, one whose transaction took longer than claimMargin.
	sweepEvery = time.Second
	// Our own transactions commit within this time after they made a saga due:
	// statement_timeout ends them before.
	longestCommit = 20 * time.Second
	// A sweep of all keys finds what a transaction that is not ours made due.
	sweepAllEvery = 5 * time.Minute
)

// queue is which of two a saga waits in: the fresh have no attempt yet, the begun have.
type queue int

const (
	fresh queue = iota
	begun
	queues
)

// key of a saga in its queue, as the index sagas_claim has it.
type key struct {
	at time.Time
	id string
}

func (k key) before(l key) bool { return k.at.Before(l.at) || k.at.Equal(l.at) && k.id < l.id }

func later(k, l key) key {
	if k.before(l) {
		return l
	}
	return k
}

func earlier(k, l key) key {
	if l.before(k) {
		return l
	}
	return k
}

// claims is how far a worker has come in each queue. A claim goes on where the one before
// ended: it reads neither the sagas in hand, nor the entries of ended sagas, which stay in
// the index while any transaction might see them. So it costs the same however much waits
// and however long a transaction is held open.
type claims struct {
	cursors [queues]key
	floors  [queues]key // no live saga has a key before: where a sweep begins
	// By the process's clock.
	sweepAt, sweepAllAt time.Time
}

// due is the sagas of one queue that may be claimed, oldest first. due_at is the end of the
// lease where a worker holds the saga.
func due(which, from, limit string) string {
	return `
		SELECT ctid, id FROM sagas
		WHERE begun = ` + which + ` AND (claim_at, id) >= (` + from + `) AND claim_at <= now() AND due_at <= now()
			AND definition || ' ' || version = ANY ($3::text[])
		ORDER BY claim_at, id LIMIT ` + limit + ` FOR UPDATE SKIP LOCKED`
}

// claim takes up to limit due sagas of the versions held, oldest first: of those that
// have not begun first as many as have a share, then of those that have begun, and
// what room is left goes to whichever is there. Were all taken by age, each that has
// to come again would queue behind a backlog that has done nothing yet.
func (w *Worker) claim(ctx context.Context, limit, share int) ([]*Instance, error) {
	asked, from := w.Now(), w.claims.cursors
	sweeps := !asked.Before(w.claims.sweepAt)
	if sweeps {
		if !asked.Before(w.claims.sweepAllAt) {
			w.claims.floors, w.claims.sweepAllAt = [queues]key{}, asked.Add(sweepAllEvery)
		}
		from = w.claims.floors
	}
	var b pgx.Batch // one round trip, and one implicit transaction
	if sweeps {
		b.Queue(`SELECT now()`)
	}
	sql, args := w.claiming(from, limit, share)
	b.Queue(sql, args...)
	results := w.pool.SendBatch(ctx, &b)
	claimed, clock, last, err := w.read(results, asked, sweeps)
	if cerr := results.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("claim sagas: %w", err)
	}
	if !clock.IsZero() { // it is known from a sweep, or from what was claimed
		w.passed(clock, last, len(claimed) == limit)
	}
	if !sweeps {
		return claimed, nil
	}
	if err := w.swept(ctx, clock, asked, from, last, len(claimed) == limit); err != nil {
		w.Log.WarnContext(ctx, "saga sweep will be repeated", "error", err) // what was claimed is in hand
	}
	return claimed, nil
}

func (w *Worker) claiming(from [queues]key, limit, share int) (sql string, args []any) {
	return `
		WITH shared AS MATERIALIZED (` + due(`false`, `$6::timestamptz, $7::text`, `least($4::int, $5::int)`) + `),
		begun AS MATERIALIZED (` + due(`true`, `$8::timestamptz, $9::text`, `$4::int - (SELECT count(*) FROM shared)`) + `),
		rest AS MATERIALIZED (` + due(`false AND id NOT IN (SELECT id FROM shared)`, `$6::timestamptz, $7::text`,
			`$4::int - (SELECT count(*) FROM shared) - (SELECT count(*) FROM begun)`) + `)
		` + take(`(TABLE shared UNION ALL TABLE begun UNION ALL TABLE rest)`),
		[]any{w.Owner, w.Lease, w.held, limit, share, from[fresh].at, from[fresh].id, from[begun].at, from[begun].id}
}

// take leases the sagas of a relation of ctid and id to this worker, and reads them.
func take(due string) string {
	return `UPDATE sagas s SET epoch = s.epoch + 1, owner = $1, due_at = now() + $2::interval, updated_at = now()
		FROM ` + due + ` due
		WHERE s.ctid = due.ctid AND s.id = due.id
		RETURNING s.merchant_id, s.id, s.definition, s.version, s.subject, s.data, coalesce(s.traceparent, ''), s.state, s.step,
		          s.step_since, s.tries, s.intent, s.attempted, s.resolving, coalesce(s.in_flight_until, 'epoch'), s.rejection,
		          s.abort, s.signaled, s.verdict, s.deadline, s.attempts, s.epoch, s.pending, s.begun, s.claim_at, now()`
}

// claimOnly takes up to limit sagas that wait for what Only names, whenever they are due: the
// workers that lack it have looked at each of them before, and hold none of them now.
func (w *Worker) claimOnly(ctx context.Context, limit int) ([]*Instance, error) {
	what, asked := w.Only(), w.Now()
	if what == "" || asked.Before(w.lookAt) {
		return nil, nil
	}
	var b pgx.Batch
	b.Queue(`
		WITH waiting AS MATERIALIZED (
			SELECT ctid, id FROM sagas
			WHERE state IN ('running', 'compensating') AND waits_for = $5 AND owner IS NULL AND paused_at IS NULL AND definition || ' ' || version = ANY ($3::text[])
			ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED)
		`+take(`(TABLE waiting)`), w.Owner, w.Lease, w.held, limit, what)
	results := w.pool.SendBatch(ctx, &b)
	claimed, _, _, err := w.read(results, asked, false)
	if cerr := results.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("claim sagas that wait for %s: %w", what, err)
	}
	if len(claimed) < limit { // it has read all that have not ended
		w.lookAt = asked.Add(sweepEvery)
	}
	return claimed, nil
}

// read takes the answers: the database's time, what was claimed, and the last key of
// it in each queue.
func (w *Worker) read(results pgx.BatchResults, asked time.Time, sweeps bool) (claimed []*Instance, clock time.Time, last [queues]key, err error) {
	if sweeps {
		if err := results.QueryRow().Scan(&clock); err != nil {
			return nil, clock, last, err
		}
	}
	rows, err := results.Query()
	if err != nil {
		return nil, clock, last, err
	}
	claimed, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Instance, error) {
		i := &Instance{claimed: asked, leased: asked.Add(w.Lease)}
		var deadline *time.Time
		var hasBegun bool
		var k key
		err := row.Scan(&i.MerchantID, &i.ID, &i.definition, &i.version, &i.Subject, &i.Data, &i.Trace, &i.State, &i.Step,
			&i.Since, &i.Tries, &i.Intent, &i.Attempted, &i.Resolving, &i.InFlight, &i.Rejection,
			&i.Abort, &i.Signaled, &i.verdict, &deadline, &i.number, &i.epoch, &i.Pending, &hasBegun, &k.at, &i.clock)
		clock = i.clock
		if deadline != nil {
			i.Deadline = *deadline
		}
		q := fresh
		if hasBegun {
			q = begun
		}
		k.id = i.ID
		last[q] = later(last[q], k)
		return i, err
	})
	return claimed, clock, last, err
}

// passed moves the cursors: to what was claimed last, or, where all that was due could be
// claimed, to the present.
func (w *Worker) passed(clock time.Time, last [queues]key, full bool) {
	for q := range last {
		to := last[q]
		if !full {
			to = key{at: clock}
		}
		w.claims.cursors[q] = earlier(later(w.claims.cursors[q], to), key{at: clock.Add(-claimMargin)})
	}
}

// swept raises the floors to the oldest live saga of each queue. A sweep that found more
// than there was room for goes on with the next claim.
func (w *Worker) swept(ctx context.Context, clock, asked time.Time, from, last [queues]key, full bool) error {
	var b pgx.Batch
	for q := range from {
		b.Queue(`
			SELECT claim_at, id FROM sagas
			WHERE begun = $1 AND claim_at IS NOT NULL AND (claim_at, id) >= ($2::timestamptz, $3::text) ORDER BY claim_at, id LIMIT 1`,
			queue(q) == begun, from[q].at, from[q].id)
	}
	results := w.pool.SendBatch(ctx, &b)
	defer results.Close()
	floors := [queues]key{}
	for q := range floors {
		floors[q] = key{at: clock.Add(-longestCommit)}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		var oldest key
		if _, err := pgx.ForEachRow(rows, []any{&oldest.at, &oldest.id}, func() error {
			floors[q] = earlier(floors[q], oldest)
			return nil
		}); err != nil {
			return err
		}
	}
	w.claims.floors = floors
	for q := range last {
		if full && last[q] != (key{}) && last[q].before(w.claims.cursors[q]) {
			return nil
		}
	}
	w.claims.sweepAt = asked.Add(sweepEvery)
	return nil
}
