package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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

// journal collects the attempts of a batch, to be written by one statement. An
// intent has no outcome yet; its conclusion has the same number.
type journal struct {
	sagas, steps, calls, owners, keys    []string
	numbers                              []int32
	epochs                               []int64
	digests                              [][]byte
	started                              []time.Time
	finished                             []*time.Time
	verdicts, codes, details, references []*string
}

// add writes attempt number i.number of saga i, as it stands.
func (j *journal) add(i *Instance, owner string, m made) {
	key := ""
	if m.digest != nil {
		key = i.key()
	}
	j.sagas, j.steps, j.calls = append(j.sagas, i.ID), append(j.steps, i.Step), append(j.calls, m.call)
	j.owners, j.keys, j.digests = append(j.owners, owner), append(j.keys, key), append(j.digests, m.digest)
	j.numbers, j.epochs = append(j.numbers, int32(i.number)), append(j.epochs, i.epoch) //nolint:gosec // counted by ones
	var verdict, code, detail, reference *string
	var ended *time.Time
	if o := m.outcome; o.Verdict != "" {
		verdict, code, detail, reference = filled(string(o.Verdict)), filled(o.Code), filled(o.Detail), filled(o.Reference)
		ended = &m.ended
	}
	j.started, j.finished = append(j.started, m.began), append(j.finished, ended)
	j.verdicts, j.codes = append(j.verdicts, verdict), append(j.codes, code)
	j.details, j.references = append(j.details, detail), append(j.references, reference)
}

func filled(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// write keeps what an earlier conclusion of the same attempt said.
func (j *journal) write(ctx context.Context, tx pgx.Tx, merchantID string) error {
	if len(j.sagas) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO saga_attempts AS a (merchant_id, saga_id, number, step, call, epoch, owner, idempotency_key, request_digest,
			started_at, finished_at, outcome, code, detail, reference)
		SELECT $1, saga_id, number, step, call, epoch, owner, nullif(key, ''), digest, started_at, finished_at, outcome, code, detail, reference
		FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::bytea[],
			$10::timestamptz[], $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[])
			AS t (saga_id, number, step, call, epoch, owner, key, digest, started_at, finished_at, outcome, code, detail, reference)
		ON CONFLICT (merchant_id, saga_id, number) DO UPDATE SET finished_at = excluded.finished_at,
			outcome = excluded.outcome, code = excluded.code, detail = excluded.detail, reference = excluded.reference
		WHERE a.outcome IS NULL`,
		merchantID, j.sagas, j.numbers, j.steps, j.calls, j.epochs, j.owners, j.keys, j.digests,
		j.started, j.finished, j.verdicts, j.codes, j.details, j.references)
	if err != nil {
		return fmt.Errorf("write attempts: %w", err)
	}
	return nil
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
