package saga

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Operations is what operators see of sagas and do with them.
type Operations struct {
	pool        *pgxpool.Pool
	definitions []Definition
}

// NewOperations takes the definitions whose sagas can be acted on.
func NewOperations(pool *pgxpool.Pool, definitions ...Definition) *Operations {
	return &Operations{pool: pool, definitions: definitions}
}

// Summary is a saga as it stands. DueAt is nil when it is at its end or parked.
type Summary struct {
	ID         string
	MerchantID string
	Definition string
	Version    int
	Subject    string
	State      State
	Step       string
	StepSince  time.Time
	Tries      int
	Resolving  bool
	Awaiting   bool
	Rejection  *Rejection
	Parked     *Rejection
	Abort      *Rejection
	Deadline   *time.Time
	PausedAt   *time.Time
	Owner      *string
	Epoch      int64
	DueAt      *time.Time
	CreatedAt  time.Time
	Trace      *string
	WaitsFor   *string // what its call lacks
	Data       json.RawMessage
}

const selectSummary = `
	SELECT id, merchant_id, definition, version, subject, state, step, step_since, tries, resolving, awaiting, rejection, parked, abort,
		deadline, paused_at, owner, epoch, due_at, created_at, traceparent, waits_for, data FROM sagas `

// Filter of a list; a zero member does not narrow. Without a State it lists what
// has not ended. OlderThan is the time since the saga came to its step.
type Filter struct {
	State      State
	Definition string
	OlderThan  time.Duration
	Paused     bool
	// Of, unless nil, are the subjects whose sagas are wanted, also those that have ended.
	Of    []Subject
	After string // the last id of the page before
	Limit int
}

// Subject is what a saga of the merchant moves.
type Subject struct{ MerchantID, ID string }

// listOf finds the sagas of subjects by their unique key. A saga's subject may have a number
// behind it: id/1.
const listOf = selectSummary + `
	WHERE (merchant_id, id) IN (
		SELECT s.merchant_id, s.id FROM unnest($6::text[], $7::text[]) AS u (merchant_id, subject), sagas s
		WHERE s.merchant_id = u.merchant_id AND s.definition = ANY ($8) AND s.subject >= u.subject AND s.subject < u.subject || '0')
		AND ($1 = '' OR definition = $1) AND step_since <= now() - $2::interval AND (NOT $3 OR paused_at IS NOT NULL) AND id > $4
		AND ($9 = '' OR state = $9)
	ORDER BY id LIMIT $5`

// listing is the query of a filter by state. The states stand in its text: of a
// parameter a generic plan could not know that sagas_not_ended holds them.
func listing(s State) string {
	states := `'running', 'compensating', 'parked'`
	switch s {
	case Running, Compensating, Completed, Compensated, Parked:
		states = `'` + string(s) + `'`
	case "":
	default:
		states = `NULL` // there is none
	}
	return selectSummary + `
		WHERE state IN (` + states + `) AND ($1 = '' OR definition = $1) AND step_since <= now() - $2::interval
			AND (NOT $3 OR paused_at IS NOT NULL) AND id > $4
		ORDER BY id LIMIT $5`
}

// List is oldest first.
func (d *Operations) List(ctx context.Context, f Filter) ([]Summary, error) {
	sql, args := listing(f.State), []any{f.Definition, f.OlderThan, f.Paused, f.After, f.Limit}
	if f.Of != nil {
		var merchants, subjects, names []string
		for _, s := range f.Of {
			merchants, subjects = append(merchants, s.MerchantID), append(subjects, s.ID)
		}
		for _, definition := range d.definitions {
			names = append(names, definition.Name)
		}
		sql, args = listOf, append(args, merchants, subjects, names, string(f.State))
	}
	rows, err := d.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list sagas: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Summary])
	if err != nil {
		return nil, fmt.Errorf("list sagas: %w", err)
	}
	return list, nil
}

// AttemptRecord is an attempt with all that is known of it. RequestDigest is SHA-256 in
// hexadecimal over the request's key and data.
type AttemptRecord struct {
	Number         int
	Step, Call     string
	Epoch          int64
	Owner          string
	IdempotencyKey string
	RequestDigest  string
	StartedAt      time.Time
	FinishedAt     *time.Time
	Outcome        Verdict
	Code, Detail   string
	Reference      string
}

// Act is what an operator did. Verdict is that of a proposal or its approval.
type Act struct {
	Number           int
	Action, Operator string
	Holder           string
	Reason           string
	Step             string
	Verdict          *Outcome
	CreatedAt        time.Time
}

// File is all that is known of a saga.
type File struct {
	Summary
	Attempts []AttemptRecord
	Acts     []Act
}

// Open reads one saga's file. Error: ErrNoSaga.
func (d *Operations) Open(ctx context.Context, id string) (File, error) {
	rows, err := d.pool.Query(ctx, selectSummary+`WHERE id = $1`, id)
	if err != nil {
		return File{}, fmt.Errorf("read saga: %w", err)
	}
	var f File
	if f.Summary, err = pgx.CollectOneRow(rows, pgx.RowToStructByPos[Summary]); errors.Is(err, pgx.ErrNoRows) {
		return File{}, ErrNoSaga
	} else if err != nil {
		return File{}, fmt.Errorf("read saga: %w", err)
	}
	rows, err = d.pool.Query(ctx, `
		SELECT number, step, call, epoch, owner, coalesce(idempotency_key, ''), request_digest, started_at, finished_at,
			coalesce(outcome, ''), coalesce(code, ''), coalesce(detail, ''), coalesce(reference, '')
		FROM saga_attempts WHERE merchant_id = $1 AND saga_id = $2 ORDER BY number`, f.MerchantID, id)
	if err != nil {
		return File{}, fmt.Errorf("read attempts: %w", err)
	}
	f.Attempts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t AttemptRecord, err error) {
		var digest []byte
		err = row.Scan(&t.Number, &t.Step, &t.Call, &t.Epoch, &t.Owner, &t.IdempotencyKey, &digest, &t.StartedAt, &t.FinishedAt,
			&t.Outcome, &t.Code, &t.Detail, &t.Reference)
		t.RequestDigest = hex.EncodeToString(digest)
		return t, err
	})
	if err != nil {
		return File{}, fmt.Errorf("read attempts: %w", err)
	}
	rows, err = d.pool.Query(ctx, `
		SELECT number, action, operator, holder, reason, step, verdict, created_at FROM saga_actions
		WHERE merchant_id = $1 AND saga_id = $2 ORDER BY number`, f.MerchantID, id)
	if err != nil {
		return File{}, fmt.Errorf("read actions: %w", err)
	}
	if f.Acts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Act]); err != nil {
		return File{}, fmt.Errorf("read actions: %w", err)
	}
	return f, nil
}
