package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// Attempt is one try of a step, as the actions and hooks see it.
type Attempt struct {
	Number              int
	Step, Call          string
	Outcome             Verdict
	Code                string
	StartedAt, Finished time.Time
}

// The kinds of an attempt.
const (
	callLocal    = "local"
	callExecute  = "execute"
	callLookup   = "lookup"
	callAwait    = "await"
	callOperator = "operator"
)

// made is a call, or what stands in its place, and what came of it.
type made struct {
	call    string
	digest  []byte // of a request that was sent
	outcome Outcome
	began   time.Time // by the database's clock
	ended   time.Time
}

// journal collects the attempts of a commit, to be written by one statement. An
// intent has no outcome yet; its conclusion has the same number.
type journal []attemptRow

type attemptRow struct {
	Saga      string     `sql:"saga_id text"`
	Number    int32      `sql:"number int"`
	Step      string     `sql:"step text"`
	Call      string     `sql:"call text"`
	Epoch     int64      `sql:"epoch bigint"`
	Owner     string     `sql:"owner text"`
	Key       string     `sql:"key text"`
	Digest    []byte     `sql:"digest bytea"`
	Started   time.Time  `sql:"started_at timestamptz"`
	Finished  *time.Time `sql:"finished_at timestamptz"`
	Outcome   string     `sql:"outcome text"`
	Code      string     `sql:"code text"`
	Detail    string     `sql:"detail text"`
	Reference string     `sql:"reference text"`
}

// add writes attempt number i.number of saga i, as it stands.
func (j *journal) add(i *Instance, owner string, m made) {
	row := attemptRow{
		Saga: i.ID, Number: int32(i.number), Step: i.Step, Call: m.call, Epoch: i.epoch, Owner: owner, //nolint:gosec // counted by ones
		Digest: m.digest, Started: m.began,
	}
	if m.digest != nil {
		row.Key = i.key()
	}
	if o := m.outcome; o.Verdict != "" {
		row.Outcome, row.Code, row.Detail, row.Reference, row.Finished = string(o.Verdict), o.Code, o.Detail, o.Reference, &m.ended
	}
	*j = append(*j, row)
}

// queue writes the attempts. What an earlier conclusion of the same attempt said stays.
func (j journal) queue(b *pgx.Batch, merchantID string) {
	if len(j) == 0 {
		return
	}
	b.Queue(`
		INSERT INTO saga_attempts AS a (merchant_id, saga_id, number, step, call, epoch, owner, idempotency_key, request_digest,
			started_at, finished_at, outcome, code, detail, reference)
		SELECT $1, saga_id, number, step, call, epoch, owner, nullif(key, ''), digest, started_at, finished_at,
			nullif(outcome, ''), nullif(code, ''), nullif(detail, ''), nullif(reference, '')
		FROM `+postgres.Unnest[attemptRow](2)+` t
		ON CONFLICT (merchant_id, saga_id, number) DO UPDATE SET finished_at = excluded.finished_at,
			outcome = excluded.outcome, code = excluded.code, detail = excluded.detail, reference = excluded.reference
		WHERE a.outcome IS NULL`, postgres.Columns(j, merchantID)...)
}

// maxTold bounds what an event tells of a step that was tried again and again.
const maxTold = 20

// concluded reads the concluded attempts of the steps at which the sagas stand.
func concluded(ctx context.Context, tx pgx.Tx, merchantID string, entries []*entry) (map[string][]Attempt, error) {
	var ids, steps []string
	for _, e := range entries {
		if e.made != nil && e.saga.number > 0 {
			ids, steps = append(ids, e.saga.ID), append(steps, e.saga.Step)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := tx.Query(ctx, `
		SELECT a.saga_id, a.number, a.step, a.call, a.outcome, coalesce(a.code, ''), a.started_at, a.finished_at
		FROM unnest($2::text[], $3::text[]) AS t (saga_id, step), LATERAL (
			SELECT * FROM saga_attempts
			WHERE merchant_id = $1 AND saga_id = t.saga_id AND step = t.step AND outcome IS NOT NULL
			ORDER BY number DESC LIMIT $4) a
		ORDER BY a.saga_id, a.number`, merchantID, ids, steps, maxTold-1)
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	told := map[string][]Attempt{}
	var id string
	var a Attempt
	_, err = pgx.ForEachRow(rows, []any{&id, &a.Number, &a.Step, &a.Call, &a.Outcome, &a.Code, &a.StartedAt, &a.Finished}, func() error {
		told[id] = append(told[id], a)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	return told, nil
}
