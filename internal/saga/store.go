package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrFenced means that another worker has taken the saga over: nothing was written.
var ErrFenced = errors.New("another worker has taken the saga over")

// Instance is one saga, as the actions and hooks see it. What an action sets in
// Data is kept with the step's outcome.
type Instance struct {
	MerchantID string
	ID         string
	Subject    string
	Data       json.RawMessage
	// Trace is the W3C traceparent of the request that began the saga, or "".
	Trace string
	// Attempts of the current step so far, while an action or hook runs.
	Attempts []Attempt

	position
	definition string
	version    int
	number     int // of the newest attempt
	epoch      int64
	clock      time.Time // the database's time at the claim …
	claimed    time.Time // … and the process's
	leased     time.Time // the process's time at which the lease certainly holds no more
}

// Rejected is why the saga turned back; nil while it goes forward.
func (i *Instance) Rejected() *Rejection { return i.Rejection }

// Attempt is one try of a step.
type Attempt struct {
	Number              int
	Step, Call          string
	Outcome             Verdict
	Code                string
	StartedAt, Finished time.Time
}

// Begin describes a new saga. At most one saga of a definition has a subject.
type Begin struct {
	MerchantID, ID, Subject, Trace string
	Data                           json.RawMessage
}

// Begin writes a new saga, due at once, on the caller's transaction.
func (d Definition) Begin(ctx context.Context, tx pgx.Tx, b Begin) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, data, traceparent, due_at)
		VALUES ($1, $2, $3, $4, $5, 'running', $6, $7, nullif($8, ''), now())`,
		b.MerchantID, b.ID, d.Name, d.Version, b.Subject, d.Steps[0].Do.Name, b.Data, b.Trace)
	if err != nil {
		return fmt.Errorf("begin saga: %w", err)
	}
	return nil
}

// claim takes up to limit due sagas of the definitions held, oldest first.
func claim(ctx context.Context, pool *pgxpool.Pool, owner string, names []string, versions []int, lease time.Duration, limit int, now func() time.Time) ([]*Instance, error) {
	asked := now()
	// sagas_due serves the inner query.
	rows, err := pool.Query(ctx, `
		UPDATE sagas s SET epoch = s.epoch + 1, owner = $1, due_at = now() + $2::interval, updated_at = now()
		FROM (SELECT merchant_id, id FROM sagas
		      WHERE due_at <= now() AND (definition, version) IN (SELECT * FROM unnest($3::text[], $4::int[]))
		      ORDER BY due_at LIMIT $5 FOR UPDATE SKIP LOCKED) due
		WHERE s.merchant_id = due.merchant_id AND s.id = due.id
		RETURNING s.merchant_id, s.id, s.definition, s.version, s.subject, s.data, coalesce(s.traceparent, ''), s.state, s.step,
		          s.step_since, s.tries, s.intent, s.resolving, coalesce(s.in_flight_until, 'epoch'), s.rejection,
		          s.attempts, s.epoch, now()`,
		owner, lease, names, versions, limit)
	if err != nil {
		return nil, fmt.Errorf("claim sagas: %w", err)
	}
	claimed, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Instance, error) {
		i := &Instance{claimed: asked, leased: asked.Add(lease)}
		return i, row.Scan(&i.MerchantID, &i.ID, &i.definition, &i.version, &i.Subject, &i.Data, &i.Trace, &i.State, &i.Step,
			&i.Since, &i.Tries, &i.Intent, &i.Resolving, &i.InFlight, &i.Rejection, &i.number, &i.epoch, &i.clock)
	})
	if err != nil {
		return nil, fmt.Errorf("claim sagas: %w", err)
	}
	return claimed, nil
}

// save writes the instance as its epoch's owner. A live saga that waits is given
// back; one that goes on keeps a fresh lease.
func (i *Instance) save(ctx context.Context, tx pgx.Tx, owner string, lease time.Duration) error {
	due := lease
	if i.Wait > 0 {
		due, owner = i.Wait, ""
	}
	tag, err := tx.Exec(ctx, `
		UPDATE sagas SET state = $4, step = $5, step_since = $6, tries = $7, attempts = $8, intent = $9, resolving = $10,
			in_flight_until = $11, rejection = $12, data = $13, updated_at = now(),
			owner = CASE WHEN $14 THEN nullif($15, '') END,
			due_at = CASE WHEN $14 THEN now() + $16::interval END
		WHERE merchant_id = $1 AND id = $2 AND epoch = $3`,
		i.MerchantID, i.ID, i.epoch, i.State, i.Step, i.Since, i.Tries, i.number, i.Intent, i.Resolving,
		i.InFlight, i.Rejection, i.Data, i.live(), owner, due)
	if err != nil {
		return fmt.Errorf("save saga: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrFenced
	}
	return nil
}

// giveBack makes the saga due after wait for whoever claims it then.
func (i *Instance) giveBack(ctx context.Context, pool *pgxpool.Pool, wait time.Duration, failed bool) error {
	_, err := pool.Exec(ctx, `
		UPDATE sagas SET owner = NULL, due_at = now() + $4::interval, tries = tries + $5::int, updated_at = now()
		WHERE merchant_id = $1 AND id = $2 AND epoch = $3 AND due_at IS NOT NULL`,
		i.MerchantID, i.ID, i.epoch, wait, map[bool]int{true: 1}[failed])
	if err != nil {
		return fmt.Errorf("give saga back: %w", err)
	}
	return nil
}

// intend writes the attempt that is about to be made; its outcome is still open.
func (i *Instance) intend(ctx context.Context, tx pgx.Tx) error {
	i.number++
	i.Intent = true
	_, err := tx.Exec(ctx, `
		INSERT INTO saga_attempts (merchant_id, saga_id, number, step, call, epoch, idempotency_key, started_at)
		VALUES ($1, $2, $3, $4, 'execute', $5, $6, clock_timestamp())`,
		i.MerchantID, i.ID, i.number, i.Step, i.epoch, i.key())
	if err != nil {
		return fmt.Errorf("write intent: %w", err)
	}
	return nil
}

// conclude writes an attempt's outcome: over its intent for an execution, as a
// row of its own for a lookup or a local step. An intent that a dead worker left
// open is closed as unknown.
func (i *Instance) conclude(ctx context.Context, tx pgx.Tx, call string, took time.Duration, o Outcome) error {
	if call != "execute" {
		if _, err := tx.Exec(ctx, `
			UPDATE saga_attempts SET outcome = 'unknown', code = 'worker_lost', finished_at = clock_timestamp()
			WHERE merchant_id = $1 AND saga_id = $2 AND number = $3 AND outcome IS NULL`,
			i.MerchantID, i.ID, i.number); err != nil {
			return fmt.Errorf("close lost intent: %w", err)
		}
		i.number++
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO saga_attempts AS a (merchant_id, saga_id, number, step, call, epoch, idempotency_key, started_at,
			finished_at, outcome, code, detail, reference)
		VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() - $8::interval, clock_timestamp(), $9, nullif($10, ''), nullif($11, ''), nullif($12, ''))
		ON CONFLICT (merchant_id, saga_id, number) DO UPDATE SET finished_at = excluded.finished_at,
			outcome = excluded.outcome, code = excluded.code, detail = excluded.detail, reference = excluded.reference`,
		i.MerchantID, i.ID, i.number, i.Step, call, i.epoch, i.key(), took, o.Verdict, o.Code, o.Detail, o.Reference)
	if err != nil {
		return fmt.Errorf("write attempt: %w", err)
	}
	rows, err := tx.Query(ctx, `
		SELECT number, step, call, outcome, coalesce(code, ''), started_at, finished_at FROM saga_attempts
		WHERE merchant_id = $1 AND saga_id = $2 AND step = $3 AND outcome IS NOT NULL ORDER BY number DESC LIMIT 20`,
		i.MerchantID, i.ID, i.Step)
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	if i.Attempts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Attempt]); err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	return nil
}

// key is the request's idempotency key: one a saga and step, on every resend.
func (i *Instance) key() string { return i.ID + ":" + i.Step }

// now is the database's time, carried on by the process's monotonic clock.
func (i *Instance) now(local time.Time) time.Time { return i.clock.Add(local.Sub(i.claimed)) }
