package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// By is who acts and why; all of it is kept with the act. Operator is what was acted with,
// as an API key, and Holder the person who has it, of whom there may be several: two texts
// that differ by case alone are one person.
type By struct{ Operator, Holder, Reason string }

// What an operator cannot do.
var (
	ErrEnded        = errors.New("the saga has ended")
	ErrNotParked    = errors.New("the saga does not wait for a person")
	ErrNotPaused    = errors.New("the saga is not paused")
	ErrNothingSent  = errors.New("nothing was sent at this step whose outcome could be looked up")
	ErrNoCall       = errors.New("the step makes no call whose outcome a person could tell")
	ErrNoProposal   = errors.New("nothing is proposed, or the saga has moved since")
	ErrSameOperator = errors.New("another person than the one who proposed has to approve")
	ErrOtherVerdict = errors.New("another verdict is proposed than the one that is approved")
	ErrUndone       = errors.New("the saga has not turned back, or something of it is undone already")
	ErrVerdict      = errors.New("a verdict is succeeded with the provider's reference, or rejected with a code")
)

// subject of an act: a saga whose row is locked.
type actedOn struct {
	merchantID, id, definition, step string
	version                          int
	state                            State
	paused, attempted, abortable     bool
	aborted                          bool
}

// act locks the saga, does what do says, and keeps the act, in one transaction.
func (d *Operations) act(ctx context.Context, by By, id, action string, verdict *Outcome, do func(tx pgx.Tx, on actedOn) error) error {
	return postgres.InTx(ctx, d.pool, func(tx pgx.Tx) error {
		on := actedOn{id: id}
		err := tx.QueryRow(ctx, `
			SELECT merchant_id, definition, version, step, state, paused_at IS NOT NULL, attempted OR intent, abortable, abort IS NOT NULL
			FROM sagas WHERE id = $1 FOR NO KEY UPDATE`, id).
			Scan(&on.merchantID, &on.definition, &on.version, &on.step, &on.state, &on.paused, &on.attempted, &on.abortable, &on.aborted)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoSaga
		}
		if err != nil {
			return fmt.Errorf("lock saga: %w", err)
		}
		if on.state == Completed || on.state == Compensated {
			return ErrEnded
		}
		if err := do(tx, on); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO saga_actions (merchant_id, saga_id, number, action, operator, holder, reason, step, verdict)
			SELECT $1, $2, coalesce(max(number), 0) + 1, $3, $4, $5, $6, $7, $8 FROM saga_actions WHERE merchant_id = $1 AND saga_id = $2`,
			on.merchantID, id, action, by.Operator, by.Holder, by.Reason, on.step, verdict); err != nil {
			return fmt.Errorf("keep the act: %w", err)
		}
		return nil
	})
}

// goOn makes the saga due. A verdict that was approved and that no worker has taken yet
// stays, whatever comes after it. A parked saga leaves that state; what was sent at its
// step is looked up before anything else. One that a worker holds stays held, and
// an intent that is not concluded stays one: who finds it waits out its horizon.
func goOn(ctx context.Context, tx pgx.Tx, on actedOn, verdict *Outcome) error {
	if _, err := tx.Exec(ctx, `
		UPDATE sagas SET state = coalesce(parked_from, state), parked = NULL, parked_from = NULL, tries = 0, verdict = coalesce($3, verdict), waits_for = NULL,
			resolving = resolving OR CASE state WHEN 'parked' THEN attempted OR intent ELSE attempted AND NOT intent END,
			due_at = CASE WHEN owner IS NULL THEN now() ELSE due_at END, updated_at = now()
		WHERE merchant_id = $1 AND id = $2`, on.merchantID, on.id, verdict); err != nil {
		return fmt.Errorf("make saga due: %w", err)
	}
	return nil
}

// Retry lets a parked or waiting saga try again now.
func (d *Operations) Retry(ctx context.Context, by By, id string) error {
	return d.act(ctx, by, id, "retry", nil, func(tx pgx.Tx, on actedOn) error { return goOn(ctx, tx, on, nil) })
}

// Resolve looks up now what was sent at the saga's step. Error: ErrNothingSent.
func (d *Operations) Resolve(ctx context.Context, by By, id string) error {
	return d.act(ctx, by, id, "resolve", nil, func(tx pgx.Tx, on actedOn) error {
		if !on.attempted {
			return ErrNothingSent
		}
		return goOn(ctx, tx, on, nil)
	})
}

// Pause holds the saga before its next step; what a worker has in hand it finishes.
func (d *Operations) Pause(ctx context.Context, by By, id string) error {
	return d.act(ctx, by, id, "pause", nil, func(tx pgx.Tx, on actedOn) error {
		if _, err := tx.Exec(ctx, `UPDATE sagas SET paused_at = coalesce(paused_at, now()) WHERE merchant_id = $1 AND id = $2`, on.merchantID, id); err != nil {
			return fmt.Errorf("pause saga: %w", err)
		}
		return nil
	})
}

// Resume ends a pause. Error: ErrNotPaused.
func (d *Operations) Resume(ctx context.Context, by By, id string) error {
	return d.act(ctx, by, id, "resume", nil, func(tx pgx.Tx, on actedOn) error {
		if !on.paused {
			return ErrNotPaused
		}
		if _, err := tx.Exec(ctx, `UPDATE sagas SET paused_at = NULL WHERE merchant_id = $1 AND id = $2`, on.merchantID, id); err != nil {
			return fmt.Errorf("resume saga: %w", err)
		}
		return nil
	})
}

// Cancel asks the saga to turn back. Errors: those of Abort.
func (d *Operations) Cancel(ctx context.Context, by By, id string, why Rejection) error {
	return d.act(ctx, by, id, "cancel", nil, func(tx pgx.Tx, on actedOn) error {
		var subject string
		if err := tx.QueryRow(ctx, `SELECT subject FROM sagas WHERE merchant_id = $1 AND id = $2`, on.merchantID, id).Scan(&subject); err != nil {
			return fmt.Errorf("read saga: %w", err)
		}
		return Abort(ctx, tx, on.merchantID, on.definition, subject, why)
	})
}

// Propose says, with the evidence in by.Reason, how a parked saga's call ended.
// Nothing follows until another person approves. Errors: ErrNotParked,
// ErrNoCall, ErrVerdict.
func (d *Operations) Propose(ctx context.Context, by By, id string, o Outcome) error {
	if !o.Whole() {
		return ErrVerdict
	}
	return d.act(ctx, by, id, "propose", &o, func(_ pgx.Tx, on actedOn) error {
		if on.state != Parked {
			return ErrNotParked
		}
		return d.calls(on)
	})
}

// Whole reports whether a person can say so.
func (o Outcome) Whole() bool {
	return o.Verdict == Succeeded && o.Reference != "" || o.Verdict == Rejected && o.Code != ""
}

// says reports whether both mean the same of the operation.
func (o Outcome) says(other Outcome) bool {
	return o.Verdict == other.Verdict && o.Reference == other.Reference && o.Code == other.Code
}

// calls refuses a step that makes no call.
func (d *Operations) calls(on actedOn) error {
	for _, definition := range d.definitions {
		if definition.Name != on.definition || definition.Version != on.version {
			continue
		}
		if _, action, ok := definition.find(on.step); ok && action.Call != nil {
			return nil
		}
	}
	return ErrNoCall
}

// Approve takes the newest act, if that is another person's proposal for the
// saga as it stands, as the outcome of its step. It says once more what it approves:
// what was proposed may have changed since its operator looked. Errors: ErrNotParked,
// ErrNoProposal, ErrSameOperator, ErrOtherVerdict, ErrVerdict.
func (d *Operations) Approve(ctx context.Context, by By, id string, o Outcome) error {
	if !o.Whole() {
		return ErrVerdict
	}
	var verdict Outcome
	return d.act(ctx, by, id, "approve", &verdict, func(tx pgx.Tx, on actedOn) error {
		if on.state != Parked {
			return ErrNotParked
		}
		var action, holder, step string
		var proposed json.RawMessage
		err := tx.QueryRow(ctx, `
			SELECT action, holder, step, coalesce(verdict, 'null') FROM saga_actions
			WHERE merchant_id = $1 AND saga_id = $2 ORDER BY number DESC LIMIT 1`, on.merchantID, id).
			Scan(&action, &holder, &step, &proposed)
		switch {
		case errors.Is(err, pgx.ErrNoRows) || err == nil && (action != "propose" || step != on.step):
			return ErrNoProposal
		case err != nil:
			return fmt.Errorf("read proposal: %w", err)
		case strings.EqualFold(holder, by.Holder):
			return ErrSameOperator
		}
		if err := json.Unmarshal(proposed, &verdict); err != nil {
			return fmt.Errorf("read proposal: %w", err)
		}
		if !verdict.says(o) {
			return ErrOtherVerdict
		}
		return goOn(ctx, tx, on, &verdict)
	})
}

// Withdraw makes a proposal void. Error: ErrNoProposal.
func (d *Operations) Withdraw(ctx context.Context, by By, id string) error {
	return d.act(ctx, by, id, "withdraw", nil, func(tx pgx.Tx, on actedOn) error {
		var proposed bool
		err := tx.QueryRow(ctx, `
			SELECT action = 'propose' FROM saga_actions WHERE merchant_id = $1 AND saga_id = $2 ORDER BY number DESC LIMIT 1`,
			on.merchantID, id).Scan(&proposed)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && !proposed {
			return ErrNoProposal
		}
		return err
	})
}

// Forward lets a saga that turned back go on to step after all, which needs what was done
// before it: it is parked at its first compensation, so that nothing is undone yet. What
// may have been sent at step is looked up first. Errors: ErrNotParked, ErrUndone.
func (d *Operations) Forward(ctx context.Context, by By, id, action, step string) error {
	return d.act(ctx, by, id, action, nil, func(tx pgx.Tx, on actedOn) error {
		if on.state != Parked {
			return ErrNotParked
		}
		if !d.nothingUndone(on, step) {
			return ErrUndone
		}
		tag, err := tx.Exec(ctx, `
			UPDATE sagas SET state = 'running', step = $3, step_since = now(), parked = NULL, parked_from = NULL, rejection = NULL, abort = NULL,
				verdict = NULL, tries = 0, intent = false, attempted = true, resolving = true, in_flight_until = now(), abortable = false,
				awaiting = false, deadline = NULL, due_at = now(), updated_at = now()
			WHERE merchant_id = $1 AND id = $2 AND parked_from = 'compensating'`, on.merchantID, on.id, step)
		if err != nil {
			return fmt.Errorf("let saga go on: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return ErrUndone
		}
		return nil
	})
}

// nothingUndone reports whether the saga stands at the compensation nearest before step.
func (d *Operations) nothingUndone(on actedOn, step string) bool {
	for _, definition := range d.definitions {
		if definition.Name != on.definition || definition.Version != on.version {
			continue
		}
		index, action, ok := definition.find(step)
		if !ok || action.Name != definition.Steps[index].Do.Name {
			return false
		}
		return definition.back(position{}, index, time.Time{}).Step == on.step
	}
	return false
}
