package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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
	// Attempts of the current step so far, oldest first, while an action or hook runs.
	Attempts []Attempt

	position
	definition string
	version    int
	number     int      // of the newest attempt
	verdict    *Outcome // of two operators, for the current step
	paused     bool
	lost       bool // its last worker died with a call in its hands
	epoch      int64
	clock      time.Time // the database's time at the claim …
	claimed    time.Time // … and the process's
	leased     time.Time // the process's time at which the lease certainly holds no more
}

// Rejected is why the saga turned back; nil while it goes forward.
func (i *Instance) Rejected() *Rejection { return i.Rejection }

// key is the request's idempotency key: one a saga and step, on every resend.
func (i *Instance) key() string { return Key(i.ID, i.Step) }

func (i *Instance) request() Request {
	return Request{Key: i.key(), Data: i.Data, Trace: i.Trace, Until: i.InFlight}
}

// Key of the requests of a saga's step at the other system.
func Key(sagaID, step string) string { return sagaID + ":" + step }

// OfKey is the saga and step that a key belongs to; false for a key that Key did not make.
func OfKey(key string) (sagaID, step string, ok bool) { return strings.Cut(key, ":") }

// now is the database's time, carried on by the process's monotonic clock.
func (i *Instance) now(local time.Time) time.Time { return i.clock.Add(local.Sub(i.claimed)) }

// claim takes up to limit due sagas of the versions held, oldest first: of those that
// have not begun first as many as have a share, then of those that have begun, and
// what room is left goes to whichever is there. Were all taken by age, each that has
// to come again would queue behind a backlog that has done nothing yet.
func claim(ctx context.Context, pool *pgxpool.Pool, owner string, names []string, versions []int, lease time.Duration, limit, share int, now func() time.Time) ([]*Instance, error) {
	asked := now()
	// sagas_due serves each of the inner queries.
	due := func(which, limit string) string {
		return `
			SELECT merchant_id, id FROM sagas
			WHERE due_at <= now() AND paused_at IS NULL AND (attempts > 0) = ` + which + `
				AND (definition, version) IN (SELECT * FROM unnest($3::text[], $4::int[]))
			ORDER BY due_at LIMIT ` + limit + ` FOR UPDATE SKIP LOCKED`
	}
	rows, err := pool.Query(ctx, `
		WITH shared AS MATERIALIZED (`+due(`false`, `least($5::int, $6::int)`)+`),
		begun AS MATERIALIZED (`+due(`true`, `$5::int - (SELECT count(*) FROM shared)`)+`),
		fresh AS MATERIALIZED (`+due(`false AND id NOT IN (SELECT id FROM shared)`, `$5::int - (SELECT count(*) FROM shared) - (SELECT count(*) FROM begun)`)+`)
		UPDATE sagas s SET epoch = s.epoch + 1, owner = $1, due_at = now() + $2::interval, updated_at = now()
		FROM (TABLE shared UNION ALL TABLE begun UNION ALL TABLE fresh) due
		WHERE s.merchant_id = due.merchant_id AND s.id = due.id
		RETURNING s.merchant_id, s.id, s.definition, s.version, s.subject, s.data, coalesce(s.traceparent, ''), s.state, s.step,
		          s.step_since, s.tries, s.intent, s.attempted, s.resolving, coalesce(s.in_flight_until, 'epoch'), s.rejection,
		          s.abort, s.signaled, s.verdict, s.deadline, s.attempts, s.epoch, now()`,
		owner, lease, names, versions, limit, share)
	if err != nil {
		return nil, fmt.Errorf("claim sagas: %w", err)
	}
	claimed, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Instance, error) {
		i := &Instance{claimed: asked, leased: asked.Add(lease)}
		var deadline *time.Time
		err := row.Scan(&i.MerchantID, &i.ID, &i.definition, &i.version, &i.Subject, &i.Data, &i.Trace, &i.State, &i.Step,
			&i.Since, &i.Tries, &i.Intent, &i.Attempted, &i.Resolving, &i.InFlight, &i.Rejection,
			&i.Abort, &i.Signaled, &i.verdict, &deadline, &i.number, &i.epoch, &i.clock)
		if deadline != nil {
			i.Deadline = *deadline
		}
		return i, err
	})
	if err != nil {
		return nil, fmt.Errorf("claim sagas: %w", err)
	}
	return claimed, nil
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
