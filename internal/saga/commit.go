package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// entry is a saga that is to be advanced: by the call that was made, or without one.
type entry struct {
	saga *Instance
	made *made
	err  error // of the commit
	done chan struct{}

	next Instance // what saga is after the commit
}

const (
	// How long a commit waits for each lock: below the lease by far, since what comes
	// behind it waits as well.
	lockWait = time.Second
	// A saga that is committed alone, since others with it could not be, waits less: so
	// do maxBatch of them at a row that stays locked.
	lockWaitAlone = 50 * time.Millisecond
)

// commitAll commits the entries, all of one merchant, in one transaction. Where one
// of them is at fault, or would write what another transaction keeps locked, each is
// committed alone, so that no saga fails for another.
func (w *Worker) commitAll(ctx context.Context, entries []*entry) {
	err := w.tryCommit(ctx, entries, lockWait)
	if err != nil && len(entries) > 1 && (postgres.Locked(err) || !postgres.Unavailable(err)) && !w.dead.Load() {
		for _, e := range entries {
			if err := w.tryCommit(ctx, []*entry{e}, lockWaitAlone); err != nil {
				e.err = err
			}
		}
		return
	}
	for _, e := range entries {
		if err != nil {
			e.err = err
		}
	}
}

// tryCommit writes in one transaction, for each entry that is still this worker's:
// the outcome of its call, every local step that follows, and the intent of the
// next call. An entry that is another's gets ErrFenced. It gives up after the time of
// a lease, after which it would be too late: a database that does not answer must
// not hold up the commits behind it for ever.
func (w *Worker) tryCommit(ctx context.Context, entries []*entry, patience time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, w.Lease)
	defer cancel()
	// A step that panics fails its own saga, not the process and so every other.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a step panicked: %v", p)
		}
	}()
	began, merchantID := w.Now(), entries[0].saga.MerchantID
	for _, e := range entries {
		e.next, e.err = *e.saga, nil
	}
	var held []*entry
	err = postgres.InTx(ctx, w.pool, func(tx pgx.Tx) (err error) {
		if held, err = w.lock(ctx, tx, merchantID, entries, patience); err != nil || len(held) == 0 {
			return err
		}
		if err := w.Lock(ctx, tx, merchantID, w.plan(held)); err != nil {
			return fmt.Errorf("lock what the steps write: %w", err)
		}
		told, err := concluded(ctx, tx, merchantID, held)
		if err != nil {
			return err
		}
		var j journal
		for _, e := range held {
			e.next.Attempts = told[e.next.ID]
			if err := w.advance(ctx, tx, &j, &e.next, e.made); err != nil {
				return err
			}
		}
		if err := j.write(ctx, tx, merchantID); err != nil {
			return err
		}
		if err := w.save(ctx, tx, merchantID, held); err != nil {
			return err
		}
		return w.die("commit", held)
	})
	if err != nil {
		return err
	}
	if err := w.die("committed", held); err != nil {
		return err
	}
	owned := map[*entry]bool{}
	for _, e := range held {
		owned[e] = true
		e.next.leased = began.Add(w.Lease)
		*e.saga = e.next
		w.ended(e.saga)
	}
	for _, e := range entries {
		if !owned[e] {
			e.err = ErrFenced
		}
	}
	return nil
}

// lock is the fence: it gives the entries whose epoch is still theirs, with their
// rows locked until the commit, and what was asked of each saga meanwhile. The
// number of attempts, that it has not ended and that it was not given back are part
// of it: a commit whose answer was lost may have taken effect, and is not made a
// second time. From here on the transaction waits for no lock longer than patience.
func (w *Worker) lock(ctx context.Context, tx pgx.Tx, merchantID string, entries []*entry, patience time.Duration) (held []*entry, err error) {
	// This worker may hold a saga twice: by a lease that has ended, and by its next claim.
	type lease struct {
		id    string
		epoch int64
	}
	byLease := map[lease]*entry{}
	ids, epochs, numbers := make([]string, len(entries)), make([]int64, len(entries)), make([]int32, len(entries))
	for n, e := range entries {
		byLease[lease{e.saga.ID, e.saga.epoch}] = e
		ids[n], epochs[n], numbers[n] = e.saga.ID, e.saga.epoch, int32(e.saga.number) //nolint:gosec // counted by ones
	}
	var both pgx.Batch // one round trip
	both.Queue(`SELECT set_config('lock_timeout', $1, true)`, fmt.Sprint(patience.Milliseconds()))
	both.Queue(`
		SELECT s.id, s.epoch, s.abort, s.signaled, s.paused_at IS NOT NULL
		FROM sagas s JOIN unnest($2::text[], $3::bigint[], $4::int[]) AS held (id, epoch, attempts)
			ON s.id = held.id AND s.epoch = held.epoch AND s.attempts = held.attempts
		WHERE s.merchant_id = $1 AND s.due_at IS NOT NULL AND s.owner = $5 ORDER BY s.id FOR NO KEY UPDATE OF s`, merchantID, ids, epochs, numbers, w.Owner)
	results := tx.SendBatch(ctx, &both)
	defer func() {
		if cerr := results.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("lock sagas: %w", cerr)
		}
	}()
	if _, err := results.Exec(); err != nil {
		return nil, fmt.Errorf("bound the wait for locks: %w", err)
	}
	rows, err := results.Query()
	if err != nil {
		return nil, fmt.Errorf("lock sagas: %w", err)
	}
	var l lease
	var abort *Rejection
	var signaled, paused bool
	_, err = pgx.ForEachRow(rows, []any{&l.id, &l.epoch, &abort, &signaled, &paused}, func() error {
		e := byLease[l]
		e.next.Abort, e.next.Signaled, e.next.paused = abort, signaled, paused
		abort = nil
		held = append(held, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lock sagas: %w", err)
	}
	return held, nil
}

// save writes the instances as their epochs' owner. A live saga that waits is given
// back; one that goes on keeps a fresh lease.
func (w *Worker) save(ctx context.Context, tx pgx.Tx, merchantID string, held []*entry) error {
	var (
		ids, states, steps, data, owners []string
		epochs                           []int64
		tries, numbers                   []int32
		intents, attempted, resolving    []bool
		abortable, awaiting, signaled    []bool
		since, inFlight                  []time.Time
		rejections, parked, aborts       []*Rejection
		from                             []*string
		pending                          []bool
		waits                            []string
		deadlines                        []*time.Time
		due                              []*float64
	)
	for _, e := range held {
		i := &e.next
		d := w.definition(i)
		_, action, _ := d.find(i.Step)
		owner, wait := w.Owner, w.Lease
		if i.Wait > 0 {
			owner, wait = "", i.Wait
		}
		var seconds *float64
		if i.live() {
			s := wait.Seconds()
			seconds = &s
		} else {
			owner = ""
		}
		var deadline *time.Time
		if !i.Deadline.IsZero() {
			deadline = &i.Deadline
		}
		ids, states, steps, data = append(ids, i.ID), append(states, string(i.State)), append(steps, i.Step), append(data, string(i.Data))
		owners, epochs = append(owners, owner), append(epochs, i.epoch)
		tries, numbers = append(tries, int32(i.Tries)), append(numbers, int32(i.number)) //nolint:gosec // counted by ones
		intents, attempted, resolving = append(intents, i.Intent), append(attempted, i.Attempted), append(resolving, i.Resolving)
		abortable, awaiting, signaled = append(abortable, d.abortable(i.position)), append(awaiting, i.live() && action.Await != nil), append(signaled, i.Signaled)
		since, inFlight = append(since, i.Since), append(inFlight, i.InFlight)
		rejections, parked, aborts = append(rejections, i.Rejection), append(parked, i.Parked), append(aborts, i.Abort)
		from, deadlines, due = append(from, filled(string(i.From))), append(deadlines, deadline), append(due, seconds)
		pending, waits = append(pending, i.Pending), append(waits, i.WaitsFor)
	}
	tag, err := tx.Exec(ctx, `
		UPDATE sagas s SET state = v.state, step = v.step, step_since = v.step_since, tries = v.tries, attempts = v.attempts,
			intent = v.intent, attempted = v.attempted, resolving = v.resolving, in_flight_until = v.in_flight_until,
			rejection = v.rejection, parked = v.parked, parked_from = v.parked_from, abort = v.abort, signaled = v.signaled, verdict = NULL,
			abortable = v.abortable, awaiting = v.awaiting, deadline = v.deadline, data = v.data::jsonb,
			pending = v.pending, waits_for = nullif(v.waits_for, ''),
			owner = nullif(v.owner, ''), due_at = clock_timestamp() + make_interval(secs => v.due), updated_at = now()
		FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::int[], $8::int[], $9::bool[], $10::bool[],
			$11::bool[], $12::timestamptz[], $13::jsonb[], $14::jsonb[], $15::text[], $16::jsonb[], $17::bool[], $18::bool[], $19::bool[],
			$20::timestamptz[], $21::text[], $22::text[], $23::float8[], $24::bool[], $25::text[])
			AS v (id, epoch, state, step, step_since, tries, attempts, intent, attempted, resolving, in_flight_until, rejection, parked,
				parked_from, abort, signaled, abortable, awaiting, deadline, data, owner, due, pending, waits_for)
		WHERE s.merchant_id = $1 AND s.id = v.id AND s.epoch = v.epoch`,
		merchantID, ids, epochs, states, steps, since, tries, numbers, intents, attempted, resolving, inFlight, rejections, parked,
		from, aborts, signaled, abortable, awaiting, deadlines, data, owners, due, pending, waits)
	if err != nil {
		return fmt.Errorf("save sagas: %w", err)
	}
	if tag.RowsAffected() != int64(len(held)) {
		return ErrFenced // cannot be: lock holds the rows
	}
	return nil
}
