package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

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

// giveBack makes the saga due after wait for whoever claims it then, and says what it
// lacks until then.
func (i *Instance) giveBack(ctx context.Context, pool *pgxpool.Pool, wait time.Duration, failed bool) error {
	_, err := pool.Exec(ctx, `
		UPDATE sagas SET owner = NULL, due_at = now() + $4::interval, tries = tries + $5::int, waits_for = nullif($6, ''), updated_at = now()
		WHERE merchant_id = $1 AND id = $2 AND epoch = $3 AND due_at IS NOT NULL`,
		i.MerchantID, i.ID, i.epoch, wait, map[bool]int{true: 1}[failed], i.WaitsFor)
	if err != nil {
		return fmt.Errorf("give saga back: %w", err)
	}
	return nil
}
