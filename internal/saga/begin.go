package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"payments/internal/postgres"
)

// Begin describes a new saga. At most one saga of a definition has a subject.
type Begin struct {
	MerchantID, ID, Subject, Trace string
	Data                           json.RawMessage
	// After is how long the saga waits before its first step.
	After time.Duration
}

// ErrBegun means that the definition has a saga of this subject already: nothing
// was written.
var ErrBegun = errors.New("this saga has begun already")

// Beginning is a saga of a definition.
type Beginning struct {
	Definition Definition
	Begin
}

// begunSaga is a new saga as it is written.
type begunSaga struct {
	ID         string        `sql:"id text"`
	Definition string        `sql:"definition text"`
	Version    int32         `sql:"version int"`
	Hash       []byte        `sql:"hash bytea"`
	Subject    string        `sql:"subject text"`
	Step       string        `sql:"step text"`
	Data       string        `sql:"data text"`
	Trace      string        `sql:"trace text"`
	After      time.Duration `sql:"after interval"`
	Deadline   time.Duration `sql:"deadline interval"`
	Abortable  bool          `sql:"abortable bool"`
	Awaiting   bool          `sql:"awaiting bool"`
}

// QueueBegin writes new sagas of one merchant, whose subjects no saga has yet. Fewer rows than
// sagas are an ErrBegun or an ErrChanged, of which Begin tells which.
func QueueBegin(b *pgx.Batch, merchantID string, all ...Beginning) {
	rows := make([]begunSaga, len(all))
	for n, s := range all {
		d, hash := s.Definition, s.Definition.Hash()
		first := position{State: Running, Step: d.Steps[0].Do.Name}
		rows[n] = begunSaga{
			ID: s.ID, Definition: d.Name, Version: int32(d.Version), Hash: hash[:], Subject: s.Subject, Step: first.Step, Data: string(s.Data), //nolint:gosec // counted by ones
			Trace: s.Trace, After: s.After, Deadline: d.Deadline, Abortable: d.abortable(first), Awaiting: d.Steps[0].Do.Await != nil,
		}
	}
	b.Queue(`
		INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, data, traceparent, due_at, abortable, awaiting, deadline)
		SELECT $1, id, definition, version, subject, 'running', step, data::jsonb, nullif(trace, ''), now() + after, abortable, awaiting,
			CASE WHEN deadline > '0' THEN now() + deadline END
		FROM `+postgres.Unnest[begunSaga](2)+` v
		WHERE NOT EXISTS (SELECT FROM saga_definitions d WHERE d.name = v.definition AND d.version = v.version AND d.hash <> v.hash)
		ON CONFLICT (merchant_id, definition, subject) DO NOTHING`, postgres.Columns(rows, merchantID)...).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() < int64(len(rows)) {
			return ErrBegun
		}
		return nil
	})
}

// Begin writes a new saga on the caller's transaction. It refuses a definition whose
// version is registered with other steps. Errors: ErrBegun, ErrChanged.
func (d Definition) Begin(ctx context.Context, tx pgx.Tx, s Begin) error {
	var b pgx.Batch
	QueueBegin(&b, s.MerchantID, Beginning{d, s})
	err := tx.SendBatch(ctx, &b).Close()
	if errors.Is(err, ErrBegun) {
		return d.refused(ctx, tx)
	}
	if err != nil {
		return fmt.Errorf("begin saga: %w", err)
	}
	return nil
}

// refused tells why a saga could not begin.
func (d Definition) refused(ctx context.Context, tx pgx.Tx) error {
	hash, changed := d.Hash(), false
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM saga_definitions WHERE name = $1 AND version = $2 AND hash <> $3)`,
		d.Name, d.Version, hash[:]).Scan(&changed); err != nil {
		return fmt.Errorf("begin saga: %w", err)
	}
	if changed {
		return d.changed()
	}
	return ErrBegun
}

// What can be asked of a saga that is on its way.
var (
	ErrNoSaga      = errors.New("there is no such saga")
	ErrPastPivot   = errors.New("the saga is past the point where it can turn back")
	ErrTurnedBack  = errors.New("the saga has turned back")
	ErrNotAwaiting = errors.New("the saga does not wait for this")
	ErrParked      = errors.New("the saga waits for a person")
)

// Locked is a saga as it is while its row is locked.
type Locked struct {
	ID    string
	State State
	Step  string
	// Abortable: it can still turn back. Awaiting: it waits for Signal. Aborted: it was
	// asked to turn back and has not begun to.
	Abortable, Awaiting, Aborted bool

	turnedFor string // the code of what it turned back for, or ""
}

// Lock locks the saga of a subject until the caller's transaction ends: nothing that the
// saga's steps write changes meanwhile. What decides is read after the lock, by a statement
// of its own: a statement from before shows what was true before the wait. Error: ErrNoSaga.
func Lock(ctx context.Context, tx pgx.Tx, merchantID, definition, subject string) (s Locked, err error) {
	err = tx.QueryRow(ctx, `
		SELECT id, state, step, abortable, awaiting, abort IS NOT NULL, coalesce(rejection->>'code', '') FROM sagas
		WHERE merchant_id = $1 AND definition = $2 AND subject = $3 FOR NO KEY UPDATE`,
		merchantID, definition, subject).Scan(&s.ID, &s.State, &s.Step, &s.Abortable, &s.Awaiting, &s.Aborted, &s.turnedFor)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, ErrNoSaga
	}
	if err != nil {
		return s, fmt.Errorf("lock saga: %w", err)
	}
	return s, nil
}

// Abort asks the saga of a subject to turn back, on the caller's transaction. It
// is kept with the saga and heeded by whoever drives it, before the pivot is
// sent; what is under way is resolved first. Asked again, it does nothing.
// Errors: ErrNoSaga, ErrPastPivot, ErrTurnedBack, ErrParked.
func Abort(ctx context.Context, tx pgx.Tx, merchantID, definition, subject string, why Rejection) error {
	s, err := Lock(ctx, tx, merchantID, definition, subject)
	switch {
	case err != nil:
		return err
	case s.State == Parked:
		return ErrParked
	case (s.State == Compensating || s.State == Compensated) && s.turnedFor == why.Code:
		return nil // asked before, and heeded
	case s.State == Compensating || s.State == Compensated:
		return ErrTurnedBack
	case !s.Abortable:
		return ErrPastPivot
	case s.Aborted:
		return nil
	}
	// A saga that a worker holds keeps its lease: the worker reads this row again before it commits.
	if _, err := tx.Exec(ctx, `
		UPDATE sagas SET abort = $3, due_at = CASE WHEN owner IS NULL THEN now() ELSE due_at END, updated_at = now()
		WHERE merchant_id = $1 AND id = $2`, merchantID, s.ID, why); err != nil {
		return fmt.Errorf("ask saga to turn back: %w", err)
	}
	return nil
}

// Signal lets the saga of a subject go on past the step at which it awaits, on
// the caller's transaction. Asked again, it does nothing. Errors: ErrNoSaga,
// ErrNotAwaiting (also when it was asked to turn back), ErrTurnedBack, ErrParked.
func Signal(ctx context.Context, tx pgx.Tx, merchantID, definition, subject string) error {
	s, err := Lock(ctx, tx, merchantID, definition, subject)
	switch {
	case err != nil:
		return err
	case s.State == Parked:
		return ErrParked
	case s.State == Compensating || s.State == Compensated:
		return ErrTurnedBack
	case !s.Awaiting || s.Aborted:
		return ErrNotAwaiting
	}
	if _, err := tx.Exec(ctx, `
		UPDATE sagas SET signaled = true, due_at = CASE WHEN owner IS NULL THEN now() ELSE due_at END, updated_at = now()
		WHERE merchant_id = $1 AND id = $2`, merchantID, s.ID); err != nil {
		return fmt.Errorf("signal saga: %w", err)
	}
	return nil
}

// newsPause is how soon after the last that was done with a saga news may make it
// due: each of many notices of one operation would else cause a lookup.
const newsPause = 200 * time.Millisecond

// Nudge makes a waiting saga due: there may be news of what it waits for. One that
// stands at another step than the news is of (empty: any), has nothing to look up,
// is held by a worker, or is at its end is left alone.
func Nudge(ctx context.Context, tx pgx.Tx, merchantID, id, step string) error {
	// updated_at stays: many notices do not put off what one makes due.
	if _, err := tx.Exec(ctx, `
		UPDATE sagas SET due_at = greatest(now(), updated_at + $4::interval)
		WHERE merchant_id = $1 AND id = $2 AND owner IS NULL AND due_at > greatest(now(), updated_at + $4::interval)
			AND (resolving OR attempts = 0) AND (step = $3 OR $3 = '')`, merchantID, id, step, newsPause); err != nil {
		return fmt.Errorf("nudge saga: %w", err)
	}
	return nil
}

// NudgeSubject is Nudge, at any step, for who knows a subject and its possible definitions.
func NudgeSubject(ctx context.Context, tx pgx.Tx, merchantID, subject string, definitions ...string) error {
	var id string
	err := tx.QueryRow(ctx, `
		SELECT s.id FROM unnest($2::text[]) AS d (name), LATERAL (
			SELECT id FROM sagas WHERE merchant_id = $1 AND definition = d.name AND subject = $3 OFFSET 0) s`,
		merchantID, definitions, subject).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("nudge saga: %w", err)
	}
	return Nudge(ctx, tx, merchantID, id, "")
}

// Provide makes the sagas due whose calls lack one of these, on the caller's transaction.
func Provide(ctx context.Context, tx pgx.Tx, what ...string) error {
	// sagas_not_ended serves this. What another transaction has locked is driven anyway.
	if _, err := tx.Exec(ctx, `
		UPDATE sagas s SET waits_for = NULL, due_at = now() FROM (
			SELECT merchant_id, id FROM sagas
			WHERE state IN ('running', 'compensating') AND waits_for = ANY ($1) AND owner IS NULL
			ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) w
		WHERE s.merchant_id = w.merchant_id AND s.id = w.id`, what); err != nil {
		return fmt.Errorf("make the sagas due that waited: %w", err)
	}
	return nil
}
