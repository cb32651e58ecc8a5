package saga

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"payments/internal/postgres"
)

// Slot is room in a worker's hand for one saga that is about to begin. Either Drive or Free
// ends it; what comes after the first of them does nothing.
type Slot struct {
	worker *Worker
	stop   context.Context //nolint:containedctx // of the worker's loop, which ends what the slot drives
	ended  atomic.Bool
}

// Reserve gives a slot, or nil if this worker should not take another saga now: the saga
// then begins as one that is due, for whoever claims it. Some slots are left for claims, so
// that a saga that comes again is not kept waiting by new ones.
func (w *Worker) Reserve() *Slot {
	stop := w.stop.Load()
	if stop == nil || (*stop).Err() != nil || w.dead.Load() || w.Only != nil || w.circuit.open() ||
		len(w.slots) >= cap(w.slots)-max(cap(w.slots)/freshShare, 1) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drains || int64(w.limit.room()) <= w.reserved.Load() { // each of those reserved is about to make a call
		return nil
	}
	select {
	case w.slots <- struct{}{}:
	default:
		return nil
	}
	w.inHand.Add(1)
	w.reserved.Add(1)
	return &Slot{worker: w, stop: *stop}
}

// opens lets there be slots, whose sagas stop when ctx ends.
func (w *Worker) opens(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drains = false
	w.stop.Store(&ctx)
}

// Free gives the slot back.
func (s *Slot) Free() {
	if s == nil || s.ended.Swap(true) {
		return
	}
	s.worker.reserved.Add(-1)
	s.release()
}

func (s *Slot) release() {
	<-s.worker.slots
	s.worker.freed()
	s.worker.inHand.Done()
}

// Drive takes the saga on in the background, once the transaction that began it is committed.
func (s *Slot) Drive(i *Instance) {
	if s.ended.Swap(true) {
		return
	}
	s.worker.reserved.Add(-1)
	go func() {
		defer s.release()
		if s.worker.dies("started", i.Step) == nil {
			s.worker.goOn(s.stop, i)
		}
	}()
}

// Started is sagas that begin in a worker's hand.
type Started struct {
	worker     *Worker
	merchantID string
	sagas      []*Instance
	rows       []startedSaga
	journal    journal
}

// Clock is the database's time in a transaction, and this process's before it was asked for.
type Clock struct{ Database, Process time.Time }

// Start runs what needs no call of new sagas of one merchant: all local steps up to the first
// call, with that call's intent. It is for the transaction that makes what the sagas are
// about, of which u is the unit. Its error is of a step, and no saga begins.
func (w *Worker) Start(ctx context.Context, u Unit, merchantID string, clock Clock, all []Beginning) (*Started, error) {
	s := &Started{worker: w, merchantID: merchantID}
	for _, b := range all {
		d := b.Definition
		if _, known := w.byName[d.Name][d.Version]; !known || b.After > 0 {
			return nil, fmt.Errorf("a saga of %s cannot begin in this worker's hand", d.key())
		}
		i := &Instance{
			MerchantID: b.MerchantID, ID: b.ID, Subject: b.Subject, Data: b.Data, Trace: b.Trace,
			position:   position{State: Running, Step: d.Steps[0].Do.Name, Since: clock.Database},
			definition: d.Name, version: d.Version, epoch: 1,
			clock: clock.Database, claimed: clock.Process, leased: clock.Process.Add(w.Lease),
		}
		if d.Deadline > 0 {
			i.Deadline = clock.Database.Add(d.Deadline)
		}
		if err := w.advance(ctx, u, &s.journal, i, nil); err != nil {
			return nil, err
		}
		hash := d.Hash()
		s.sagas = append(s.sagas, i)
		s.rows = append(s.rows, startedSaga{
			savedSaga: w.saved(i), Definition: d.Name, Version: int32(d.Version), Hash: hash[:], Subject: i.Subject, Trace: i.Trace, //nolint:gosec // counted by ones
		})
	}
	return s, nil
}

// startedSaga is a saga as its first transaction writes it.
type startedSaga struct {
	savedSaga

	Definition string `sql:"definition text"`
	Version    int32  `sql:"version int"`
	Hash       []byte `sql:"hash bytea"`
	Subject    string `sql:"subject text"`
	Trace      string `sql:"trace text"`
}

// Queue writes the sagas and their attempts. Error: ErrBegun, as of QueueBegin.
func (s *Started) Queue(b *pgx.Batch) {
	if len(s.rows) == 0 {
		return
	}
	// claim_at is of now also where the lease ends later, as if the saga had been due and claimed.
	b.Queue(`
		INSERT INTO sagas (merchant_id, id, definition, version, subject, traceparent, state, step, step_since, tries, attempts, intent, attempted,
			resolving, in_flight_until, rejection, parked, parked_from, abort, signaled, abortable, awaiting, deadline, data, pending, waits_for,
			epoch, owner, due_at, claim_at, begun)
		SELECT $1, id, definition, version, subject, nullif(trace, ''), state, step, step_since, tries, attempts, intent, attempted,
			resolving, in_flight_until, rejection, parked, nullif(parked_from, ''), abort, signaled, abortable, awaiting, deadline, data::jsonb, pending, nullif(waits_for, ''),
			epoch, nullif(owner, ''), clock_timestamp() + make_interval(secs => due),
			CASE WHEN due IS NOT NULL AND owner <> '' THEN clock_timestamp() END, attempts > 0
		FROM `+postgres.Unnest[startedSaga](2)+` v
		WHERE NOT EXISTS (SELECT FROM saga_definitions d WHERE d.name = v.definition AND d.version = v.version AND d.hash <> v.hash)
		ON CONFLICT (merchant_id, definition, subject) DO NOTHING`, postgres.Columns(s.rows, s.merchantID)...).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() < int64(len(s.rows)) {
			return ErrBegun
		}
		return nil
	})
	s.journal.queue(b, s.merchantID)
}

// Crash is where a test lets the worker die before the transaction is committed.
func (s *Started) Crash() error {
	for _, i := range s.sagas {
		if err := s.worker.dies("start", i.Step); err != nil {
			return err
		}
	}
	return nil
}

// Committed hands each saga that goes on to its slot, of the same order, and frees the slots
// of the others. It is called once the commit is known to have succeeded: of one whose answer
// was lost, nothing may be driven from memory.
func (s *Started) Committed(slots []*Slot) {
	for n, i := range s.sagas {
		s.worker.ended(i)
		if i.live() && i.Wait == 0 {
			slots[n].Drive(i)
		} else {
			slots[n].Free()
		}
	}
}
