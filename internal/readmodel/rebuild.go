package readmodel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/inbox"
	"payments/internal/postgres"
)

// Phase is a part of a rebuild, in the order below.
type Phase string

// The phases. Up to PhaseSwap nothing that others use is touched, and a rebuild
// that ends in any of them leaves nothing behind that the next does not remove.
const (
	PhasePrepare  Phase = "prepare"  // remove leftovers, make the new tables
	PhaseSnapshot Phase = "snapshot" // fill them from the write model
	PhaseIndex    Phase = "index"
	PhaseCatchUp  Phase = "catch up" // from the log
	PhaseCompare  Phase = "compare"  // with the live tables, row by row
	PhaseHold     Phase = "hold"     // the projector waits from here on
	PhaseSwap     Phase = "swap"     // and readers, too
	PhaseDone     Phase = "done"
)

// Phases in their order.
var Phases = []Phase{ //nolint:gochecknoglobals // a constant, were slices constants
	PhasePrepare, PhaseSnapshot, PhaseIndex, PhaseCatchUp, PhaseCompare, PhaseHold, PhaseSwap,
}

// Log is the log of the payments' events; internal/broker is one.
type Log interface {
	// Spans has for each partition its first offset and the one behind its newest message.
	Spans(ctx context.Context, topic string) (map[int][2]int64, error)
	// Read is what the partition holds from the offset on, as far as one answer goes.
	Read(ctx context.Context, topic string, partition int, offset int64) ([]inbox.Message, error)
}

// RebuildConfig needs all but Accept, Enter and HoldFor.
type RebuildConfig struct {
	// Write reads the write model. Read may create schemas and owns the tables of
	// the read model, in the same database or another.
	Write, Read *pgxpool.Pool
	Log         Log
	Topic       string
	// Consumer is the projector's name in its inbox.
	Consumer string
	// Accept swaps although the live tables differ.
	Accept bool
	// Enter is told of each phase as it begins.
	Enter func(Phase)
	// HoldFor bounds one hold of the projector, whose own patience for a lock is 5 s, of
	// which the wait for the hold takes up to 1.5 s. Default 3 s.
	HoldFor time.Duration
	Logger  *slog.Logger
}

// Rebuilt is what a rebuild did. Counts are of rows.
type Rebuilt struct {
	Payments, Refunds int64 // in the snapshot
	Lines             int64 // of the timeline, from the outbox
	Kept              int64 // of the timeline, from the live table
	Applied           int64 // events from the log, overlap with the snapshot included
	Compared          int64 // payments in either table
	Behind            int64 // payments that are newer in the new tables than in the live ones
	Different         int64
	Differences       []Difference // the first hundred
	Swapped           bool
	Seconds           map[Phase]float64
	Tries             int // of hold and swap
}

// Difference is a payment whose live row is not what the write model says at the
// same sequence. What names the columns; or "refunds", "timeline", "terms"; or says that
// the payment is unknown to the write model, or the live row further than the log.
type Difference struct {
	MerchantID, PaymentID string
	What                  string
}

var (
	// ErrRebuilding: another rebuild holds the lock.
	ErrRebuilding = errors.New("another rebuild of payment_view is under way")
	// ErrDifferent: the live tables differ, and stay.
	ErrDifferent = errors.New("the live read model differs from the write model and was not replaced; -accept-differences replaces it")
	// ErrNoHold: others kept the tables' locks, or the projector ran on, at every try.
	ErrNoHold = errors.New("the tables could not be swapped at any try, for their locks or the projector's pace; run it again")
)

const (
	schemaNext  = "payment_view_next"
	rebuildLock = 0x72656275 // one rebuild a database
	maxTries    = 20
	// How long the projector may queue for a hold that has to wait: longer than deadlock_timeout (1 s), after
	// which an autovacuum gives way, and with HoldFor within the projector's own patience of 5 s.
	holdPatience    = "1500ms"
	swapPatience    = "200ms" // how long readers may queue behind a swap that has to wait
	vacuumPause     = 500 * time.Millisecond
	shownDifference = 100
	cleanTimeout    = 10 * time.Second
)

// Rebuild fills new tables from the write model, catches up from the log, compares
// and swaps, while queries, posts and the projector go on (docs/read-model.md). It
// can be killed at any instant and run again: all it makes lies in the schema
// payment_view_next and under a consumer's name of its own, until one transaction
// puts it in place. Errors: ErrRebuilding, ErrDifferent, ErrNoHold.
func Rebuild(ctx context.Context, c RebuildConfig) (r Rebuilt, err error) {
	if c.Write == nil || c.Read == nil || c.Log == nil || c.Topic == "" || c.Consumer == "" || c.Logger == nil {
		return r, errors.New("a rebuild needs both pools, the log and its topic, the projector's name and a logger")
	}
	if c.Enter == nil {
		c.Enter = func(Phase) {}
	}
	if c.HoldFor == 0 {
		c.HoldFor = 3 * time.Second
	}
	// The session that holds the lock does all work on the tables: should it end, no
	// other rebuild can meet this one at the swap.
	conn, err := session(ctx, c.Read)
	if err != nil {
		return r, err
	}
	defer func() { // the lock goes with it, and where it can it is given back before the answer
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		_, _ = conn.Exec(ctx, `SELECT pg_advisory_unlock_all()`)
		_ = conn.Close(ctx)
	}()
	var locked bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, rebuildLock).Scan(&locked); err != nil {
		return r, fmt.Errorf("lock the rebuild: %w", err)
	}
	if !locked {
		return r, ErrRebuilding
	}
	b := &rebuild{RebuildConfig: c, conn: conn, done: &r, since: time.Now()}
	r.Seconds = map[Phase]float64{}
	err = b.run(ctx)
	b.enter(PhaseDone)
	if !r.Swapped {
		b.abandon(ctx)
	}
	return r, err
}

// session is a connection whose statements take as long as they need.
func session(ctx context.Context, pool *pgxpool.Pool) (*pgx.Conn, error) {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	conn := pooled.Hijack() // so that its settings do not outlive it
	_, err = conn.Exec(ctx, `
		SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET application_name = 'payments replay';
		SET maintenance_work_mem = '128MB'; SET work_mem = '64MB'; SET client_min_messages = 'warning'`)
	if err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("open a session: %w", err)
	}
	return conn, nil
}

type rebuild struct {
	RebuildConfig
	conn  *pgx.Conn
	done  *Rebuilt
	phase Phase
	since time.Time
	// As compare and judge saw it last; unseen is what settle took out.
	unsettled, behind, unseen int64
}

func (b *rebuild) enter(p Phase) {
	now := time.Now()
	if b.phase != "" {
		b.done.Seconds[b.phase] += now.Sub(b.since).Seconds()
	}
	b.phase, b.since = p, now
	b.Enter(p)
}

func (b *rebuild) run(ctx context.Context) error {
	b.enter(PhasePrepare)
	if err := b.clean(ctx); err != nil {
		return err
	}
	if err := b.makeTables(ctx); err != nil {
		return err
	}
	f, err := b.newFollower(ctx)
	if err != nil {
		return err
	}
	defer f.close()
	b.enter(PhaseSnapshot)
	if err := b.snapshot(ctx); err != nil {
		return err
	}
	b.enter(PhaseIndex)
	if err := b.index(ctx); err != nil {
		return err
	}
	b.enter(PhaseCatchUp)
	if err := f.toTheEnd(ctx); err != nil {
		return err
	}
	b.enter(PhaseCompare)
	if err := b.compare(ctx); err != nil {
		return err
	}
	if err := b.settle(ctx, f); err != nil {
		return err
	}
	for b.done.Tries < maxTries {
		b.done.Tries++
		err := b.swap(ctx, f)
		if err == nil || !errors.Is(err, errTryAgain) {
			return err
		}
		b.Logger.InfoContext(ctx, "swap tried and put off", "try", b.done.Tries, "error", err)
		b.enter(PhaseCatchUp)
		if err := b.awaitVacuum(ctx, f); err != nil {
			return err
		}
		if err := f.toTheEnd(ctx); err != nil {
			return err
		}
	}
	return ErrNoHold
}

// awaitVacuum follows the log until no vacuum, ANALYZE or CREATE INDEX CONCURRENTLY runs on a
// live table: it may take hours, ends by itself, and is no reason to throw the work away.
func (b *rebuild) awaitVacuum(ctx context.Context, f *follower) error {
	pause := time.NewTicker(vacuumPause)
	defer pause.Stop()
	for told := false; ; {
		var who *string
		// The lock of an autovacuum counts as well: it has not given way, so that it prevents a wraparound.
		if err := b.conn.QueryRow(ctx, `
			SELECT min(coalesce(a.query, 'process ' || l.pid)) FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'
				AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
				AND l.relation = ANY ($1::text[]::regclass[])`, liveTables()).Scan(&who); err != nil {
			return fmt.Errorf("look for a vacuum: %w", err)
		}
		if who == nil {
			return nil
		}
		if !told {
			told = true
			b.Logger.WarnContext(ctx, "the swap waits for the end of maintenance on a live table", "statement", *who)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := f.toTheEnd(ctx); err != nil {
			return err
		}
	}
}

// errTryAgain: a lock was not to be had in time, or the log was not read in time.
var errTryAgain = errors.New("not this time")

func orTryAgain(err error) error {
	if postgres.Locked(err) {
		return fmt.Errorf("%w: %w", errTryAgain, err)
	}
	return err
}

// swap is one transaction: it holds the writers of the live tables, while readers
// go on, until the new tables are as far as the live ones, and then replaces them.
func (b *rebuild) swap(ctx context.Context, f *follower) error {
	b.enter(PhaseHold)
	tx, err := b.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin the swap: %w", err)
	}
	if err := b.replace(ctx, tx, f); err != nil {
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		return errors.Join(err, tx.Rollback(rctx))
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit the swap, which may have been made: %w", err)
	}
	b.done.Swapped = true
	// After the commit, since there may be an id for each event of the log, and readers
	// would wait for their deletion.
	if err := forget(ctx, b.conn, b.consumer()); err != nil {
		b.Logger.WarnContext(ctx, "swapped; leftovers of this rebuild stay until the next", "error", err)
	}
	return nil
}

func (b *rebuild) replace(ctx context.Context, tx pgx.Tx, f *follower) error {
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '`+holdPatience+`'`); err != nil {
		return fmt.Errorf("hold the projector: %w", err)
	}
	// EXCLUSIVE keeps out the projector and replays of blocked keys, whose first
	// statement is a SELECT … FOR UPDATE on payment_view, and lets plain reads in.
	if _, err := tx.Exec(ctx, `LOCK TABLE public.payment_view, public.refund_view, public.payment_timeline, public.payment_term IN EXCLUSIVE MODE`); err != nil {
		return orTryAgain(fmt.Errorf("hold the projector: %w", err))
	}
	held, cancel := context.WithTimeout(ctx, b.HoldFor)
	defer cancel()
	if err := f.toTheProjector(held, tx); err != nil {
		return hold(ctx, held, err)
	}
	if err := f.retry(held, tx); err != nil {
		return hold(ctx, held, err)
	}
	if err := b.keepBlockedLines(ctx, tx); err != nil {
		return err
	}
	if err := b.judge(ctx, tx, true); err != nil {
		return err
	}
	if err := b.report(ctx, tx); err != nil {
		return err
	}
	if b.done.Different > 0 && !b.Accept {
		return ErrDifferent
	}
	b.enter(PhaseSwap)
	for _, statement := range swapStatements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return orTryAgain(fmt.Errorf("swap: %w", err))
		}
	}
	return nil
}

// hold makes a hold that took too long one to be tried again.
func hold(ctx, held context.Context, err error) error {
	if ctx.Err() == nil && held.Err() != nil {
		return fmt.Errorf("%w: %w", errTryAgain, err)
	}
	return err
}
