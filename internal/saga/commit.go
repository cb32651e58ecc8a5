package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"payments/internal/postgres"
)

// entry is a saga that is to be advanced: by the call that was made, or without one.
type entry struct {
	saga *Instance
	made *made
	err  error // of the commit

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

// ErrOvertaken is of a Unit that read something without its lock, which has changed by the time
// of its writing. Nothing was written, and the commit is made again.
var ErrOvertaken = errors.New("what the commit is about has changed meanwhile")

// maxOvertaken is how often a commit is tried that is overtaken each time.
const maxOvertaken = 3

// commitAll commits the entries, all of one merchant, in one transaction. Where one
// of them is at fault, or would write what another transaction keeps locked, each is
// committed alone, so that no saga fails for another.
func (w *Worker) commitAll(ctx context.Context, entries []*entry) {
	err := w.tryCommit(ctx, entries, lockWait)
	for try := 1; errors.Is(err, ErrOvertaken) && try < maxOvertaken; try++ {
		err = w.tryCommit(ctx, entries, lockWait)
	}
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
		u, err := w.Open(ctx, tx, merchantID, w.plan(held))
		if err != nil {
			return fmt.Errorf("lock and read what the steps change: %w", err)
		}
		told, err := concluded(ctx, tx, merchantID, held)
		if err != nil {
			return err
		}
		var j journal
		for _, e := range held {
			e.next.Attempts = told[e.next.ID]
			if err := w.advance(ctx, u, &j, &e.next, e.made); err != nil {
				return err
			}
		}
		var b pgx.Batch // one round trip
		j.queue(&b, merchantID)
		w.save(&b, merchantID, held)
		if err := u.Queue(&b); err != nil {
			return err
		}
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return fmt.Errorf("write what the steps changed: %w", err)
		}
		return w.die("commit", held)
	})
	if err != nil {
		return err
	}
	if err := w.die("committed", held); err != nil {
		return err
	}
	w.Committed()
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
	inOrder := slices.SortedFunc(slices.Values(entries), func(a, b *entry) int { return strings.Compare(a.saga.ID, b.saga.ID) })
	for n, e := range inOrder { // in which they are locked
		byLease[lease{e.saga.ID, e.saga.epoch}] = e
		ids[n], epochs[n], numbers[n] = e.saga.ID, e.saga.epoch, int32(e.saga.number) //nolint:gosec // counted by ones
	}
	var both pgx.Batch // one round trip
	both.Queue(`SELECT set_config('lock_timeout', $1, true)`, fmt.Sprint(patience.Milliseconds()))
	both.Queue(`
		SELECT s.id, s.epoch, s.abort, s.signaled, s.paused
		FROM unnest($2::text[], $3::bigint[], $4::int[]) AS held (id, epoch, attempts), LATERAL (
			SELECT id, epoch, abort, signaled, paused_at IS NOT NULL AS paused FROM sagas
			WHERE merchant_id = $1 AND id = held.id AND epoch = held.epoch AND attempts = held.attempts
				AND due_at IS NOT NULL AND owner = $5 FOR NO KEY UPDATE) s`, merchantID, ids, epochs, numbers, w.Owner)
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

// savedSaga is what a commit writes of a saga.
type savedSaga struct {
	ID        string     `sql:"id text"`
	Epoch     int64      `sql:"epoch bigint"`
	State     string     `sql:"state text"`
	Step      string     `sql:"step text"`
	Since     time.Time  `sql:"step_since timestamptz"`
	Tries     int32      `sql:"tries int"`
	Attempts  int32      `sql:"attempts int"`
	Intent    bool       `sql:"intent bool"`
	Attempted bool       `sql:"attempted bool"`
	Resolving bool       `sql:"resolving bool"`
	InFlight  time.Time  `sql:"in_flight_until timestamptz"`
	Rejection *Rejection `sql:"rejection jsonb"`
	Parked    *Rejection `sql:"parked jsonb"`
	From      string     `sql:"parked_from text"`
	Abort     *Rejection `sql:"abort jsonb"`
	Signaled  bool       `sql:"signaled bool"`
	Abortable bool       `sql:"abortable bool"`
	Awaiting  bool       `sql:"awaiting bool"`
	Deadline  *time.Time `sql:"deadline timestamptz"`
	Data      string     `sql:"data text"`
	Owner     string     `sql:"owner text"`
	Due       *float64   `sql:"due float8"` // seconds from now; nil: it has ended
	Pending   bool       `sql:"pending bool"`
	WaitsFor  string     `sql:"waits_for text"`
}

func (w *Worker) saved(i *Instance) savedSaga {
	d := w.definition(i)
	_, action, _ := d.find(i.Step)
	s := savedSaga{
		ID: i.ID, Epoch: i.epoch, State: string(i.State), Step: i.Step, Since: i.Since,
		Tries: int32(i.Tries), Attempts: int32(i.number), //nolint:gosec // counted by ones
		Intent: i.Intent, Attempted: i.Attempted, Resolving: i.Resolving, InFlight: i.InFlight,
		Rejection: i.Rejection, Parked: i.Parked, From: string(i.From), Abort: i.Abort, Signaled: i.Signaled,
		Abortable: d.abortable(i.position), Awaiting: i.live() && action.Await != nil,
		Data: string(i.Data), Pending: i.Pending, WaitsFor: i.WaitsFor,
	}
	if !i.Deadline.IsZero() {
		s.Deadline = &i.Deadline
	}
	if i.live() {
		s.Owner = w.Owner
		due := w.Lease.Seconds()
		if i.Wait > 0 {
			s.Owner, due = "", i.Wait.Seconds()
		}
		s.Due = &due
	}
	return s
}

// save queues the writing of the instances as their epochs' owner. A live saga that waits
// is given back; one that goes on keeps a fresh lease.
func (w *Worker) save(b *pgx.Batch, merchantID string, held []*entry) {
	rows := make([]savedSaga, len(held))
	for n, e := range held {
		rows[n] = w.saved(&e.next)
	}
	b.Queue(`
		UPDATE sagas s SET state = v.state, step = v.step, step_since = v.step_since, tries = v.tries, attempts = v.attempts,
			intent = v.intent, attempted = v.attempted, resolving = v.resolving, in_flight_until = v.in_flight_until,
			rejection = v.rejection, parked = v.parked, parked_from = nullif(v.parked_from, ''), abort = v.abort, signaled = v.signaled, verdict = NULL,
			abortable = v.abortable, awaiting = v.awaiting, deadline = v.deadline, data = v.data::jsonb,
			pending = v.pending, waits_for = nullif(v.waits_for, ''),
			owner = nullif(v.owner, ''), due_at = clock_timestamp() + make_interval(secs => v.due), updated_at = now()
		FROM `+postgres.Located[savedSaga](2, "sagas", "id", "epoch")+` v WHERE s.ctid = v.ctid`,
		postgres.Columns(rows, merchantID)...).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(len(rows)) {
			return ErrFenced // cannot be: lock holds the rows
		}
		return nil
	})
}
