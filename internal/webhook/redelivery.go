package webhook

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// Range is a time in which an endpoint did not get its events: from From on and before To.
// An event is in it by when the service turned to delivering it. A zero bound is open.
type Range struct{ From, To time.Time }

// Redelivered is what one step of a redelivery has made due.
type Redelivered struct {
	Missed int  // events that came while the endpoint was disabled: new deliveries
	Failed int  // deliveries that had failed for good, under their ids
	More   bool // the next step finds others
}

// redeliverStep bounds the events of each kind that one transaction makes due.
const redeliverStep = 1000

// RedeliverRange makes one step's events of the range due, the oldest first: what the
// endpoint missed while it was disabled, and the deliveries that have failed. What is
// pending or was delivered stays as it is, so that a repetition does no harm. Errors:
// CodeNotFound, and CodeWebhookDisabled while the endpoint is.
func (s *Store) RedeliverRange(ctx context.Context, merchantID, endpointID string, in Range) (done Redelivered, err error) {
	if !in.From.IsZero() && !in.To.IsZero() && !in.From.Before(in.To) {
		return done, &payment.Error{Code: payment.CodeInvalid, Message: "The range is not valid.", Fields: []payment.FieldError{
			{Pointer: "/to", Code: "out_of_range", Message: "must be after from"},
		}}
	}
	if !payment.ValidID(payment.PrefixEndpoint, endpointID) {
		return done, errNoEndpoint()
	}
	from, to := zeronull.Timestamptz(in.From), zeronull.Timestamptz(in.To) // NULL is an open end
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		done = Redelivered{}
		// Deliveries before endpoints, as the dispatcher locks them.
		// webhook_deliveries_log gives the rows in order.
		failed, err := tx.Exec(ctx, `
			UPDATE webhook_deliveries SET state = 'pending', tries = 0, due_at = now(), settled_at = NULL
			WHERE (merchant_id, id) IN (
				SELECT merchant_id, id FROM webhook_deliveries
				WHERE merchant_id = $1 AND endpoint_id = $2 AND state = 'failed'
					AND ($3::timestamptz IS NULL OR created_at >= $3) AND ($4::timestamptz IS NULL OR created_at < $4)
				ORDER BY id LIMIT $5 FOR UPDATE)`, merchantID, endpointID, from, to, redeliverStep)
		if err != nil {
			return fmt.Errorf("redeliver what failed: %w", err)
		}
		e, err := s.one(tx.Query(ctx, selectEndpoint+`merchant_id = $1 AND id = $2 FOR SHARE`, merchantID, endpointID))
		if err != nil {
			return err
		}
		if e.DisabledReason != "" {
			return errDisabled()
		}
		missed, err := s.takeMissed(ctx, tx, e, from, to)
		if err != nil {
			return err
		}
		done.Failed, done.Missed = int(failed.RowsAffected()), missed
		done.More = done.Failed == redeliverStep || done.Missed == redeliverStep
		return nil
	})
	return done, err
}

// Merchant is whose the endpoint is. Error: CodeNotFound.
func (s *Store) Merchant(ctx context.Context, endpointID string) (string, error) {
	if !payment.ValidID(payment.PrefixEndpoint, endpointID) {
		return "", errNoEndpoint()
	}
	e, err := s.one(postgres.Query(ctx, s.pool, selectEndpoint+`id = $1`, endpointID))
	return e.MerchantID, err
}

// takeMissed turns missed events into deliveries, by the index webhook_missed_range.
func (s *Store) takeMissed(ctx context.Context, tx pgx.Tx, e Endpoint, from, to zeronull.Timestamptz) (n int, err error) {
	ids := make([]string, redeliverStep)
	for i := range ids {
		ids[i] = s.ids.New(payment.PrefixDelivery)
	}
	slices.Sort(ids) // the log is in their order
	err = tx.QueryRow(ctx, `
		WITH next AS (
			SELECT event_id FROM webhook_missed
			WHERE merchant_id = $1 AND endpoint_id = $2
				AND ($3::timestamptz IS NULL OR missed_at >= $3) AND ($4::timestamptz IS NULL OR missed_at < $4)
			ORDER BY missed_at, event_id LIMIT $5 FOR UPDATE
		), taken AS (
			DELETE FROM webhook_missed m USING next
			WHERE m.merchant_id = $1 AND m.endpoint_id = $2 AND m.event_id = next.event_id
			RETURNING m.event_id, m.event_type, m.payment_id, m.body, m.missed_at
		), numbered AS (
			SELECT *, row_number() OVER (ORDER BY missed_at, event_id) AS n FROM taken
		), made AS (
			INSERT INTO webhook_deliveries (merchant_id, id, endpoint_id, event_id, event_type, payment_id, body, created_at)
			SELECT $1, ($6::text[])[n], $2, event_id, event_type, payment_id, body, missed_at FROM numbered
			ON CONFLICT (merchant_id, endpoint_id, event_id) DO NOTHING
		)
		SELECT count(*) FROM taken`, e.MerchantID, e.ID, from, to, redeliverStep, ids).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("redeliver what was missed: %w", err)
	}
	return n, nil
}

func errDisabled() *payment.Error {
	return payment.Errorf(payment.CodeWebhookDisabled, "The webhook endpoint is disabled. Enable it first.")
}
