package webhook

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// State of a delivery.
type State string

// A delivery is pending until an attempt has succeeded or the last one has failed.
const (
	Pending   State = "pending"
	Succeeded State = "succeeded"
	Failed    State = "failed"
)

// Delivery is one event on its way to one endpoint. Its ID is the webhook-id.
type Delivery struct {
	MerchantID string
	ID         string
	EndpointID string
	EventID    string
	EventType  string
	PaymentID  string
	State      State
	Attempts   int
	DueAt      *time.Time // of the next attempt, or the end of the lease under which one is made
	CreatedAt  time.Time
	SettledAt  *time.Time
	Log        []Attempt // the newest, oldest first, maxShown at most
}

// Attempt is one POST. Status is 0 when there was no answer, or none of HTTP's.
type Attempt struct {
	Number    int
	StartedAt time.Time
	Duration  time.Duration
	Status    int
	Outcome   Outcome
	Detail    string
}

// maxShown attempts of a delivery: more only come of redeliveries by hand.
const maxShown = 20

const selectDelivery = `
	SELECT merchant_id, id, endpoint_id, event_id, event_type, payment_id, state, attempts, due_at, created_at, settled_at
	FROM webhook_deliveries WHERE merchant_id = $1 AND endpoint_id = $2 AND `

func scanDelivery(row pgx.CollectableRow) (d Delivery, err error) {
	return d, row.Scan(&d.MerchantID, &d.ID, &d.EndpointID, &d.EventID, &d.EventType, &d.PaymentID, &d.State, &d.Attempts, &d.DueAt, &d.CreatedAt, &d.SettledAt)
}

// Deliveries pages through an endpoint's log, newest first, by the last id seen
// (empty: from the newest). CodeNotFound when the scope has no such endpoint.
func (s *Store) Deliveries(ctx context.Context, scope access.Scope, endpointID, after string, limit int) (page []Delivery, more bool, err error) {
	return s.DeliveriesOf(ctx, scope, endpointID, nil, after, limit)
}

// DeliveriesOf is Deliveries of these events alone; nil are all.
func (s *Store) DeliveriesOf(ctx context.Context, scope access.Scope, endpointID string, events []string, after string, limit int) (page []Delivery, more bool, err error) {
	e, err := s.Get(ctx, scope, endpointID)
	if err != nil {
		return nil, false, err
	}
	// webhook_deliveries_log gives the rows in order, and the unique key those of events.
	only, args := "", []any{e.MerchantID, e.ID, after}
	if events != nil {
		only, args = `event_id = ANY ($4) AND `, append(args, events)
	}
	rows, err := postgres.Query(ctx, s.pool, selectDelivery+only+`($3 = '' OR id < $3) ORDER BY id DESC LIMIT `+strconv.Itoa(limit+1), args...)
	if err != nil {
		return nil, false, fmt.Errorf("list deliveries: %w", err)
	}
	if page, err = pgx.CollectRows(rows, scanDelivery); err != nil {
		return nil, false, fmt.Errorf("list deliveries: %w", err)
	}
	if more = len(page) > limit; more {
		page = page[:limit]
	}
	return page, more, s.readAttempts(ctx, e.MerchantID, page)
}

func (s *Store) readAttempts(ctx context.Context, merchantID string, page []Delivery) error {
	ids := make([]string, len(page))
	at := map[string]*Delivery{}
	for i := range page {
		ids[i], at[page[i].ID] = page[i].ID, &page[i]
	}
	rows, err := postgres.Query(ctx, s.pool, `
		SELECT a.delivery_id, a.number, a.started_at, a.duration_ms, coalesce(a.status, 0), a.outcome, a.detail
		FROM webhook_attempts a JOIN webhook_deliveries d ON d.merchant_id = a.merchant_id AND d.id = a.delivery_id
		WHERE a.merchant_id = $1 AND a.delivery_id = ANY ($2) AND a.number > d.attempts - $3
		ORDER BY a.delivery_id, a.number`, merchantID, ids, maxShown)
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	var id string
	var a Attempt
	var ms int
	_, err = pgx.ForEachRow(rows, []any{&id, &a.Number, &a.StartedAt, &ms, &a.Status, &a.Outcome, &a.Detail}, func() error {
		a.Duration = time.Duration(ms) * time.Millisecond
		at[id].Log = append(at[id].Log, a)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	return nil
}

// Redeliver makes the delivery due now, under its id, with the whole schedule
// before it. One that is under way is left to its dispatcher. Errors:
// CodeNotFound, and CodeWebhookDisabled while its endpoint is.
func (s *Store) Redeliver(ctx context.Context, merchantID, endpointID, id string) (d Delivery, err error) {
	if !payment.ValidID(payment.PrefixDelivery, id) {
		return Delivery{}, errNoDelivery()
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// Deliveries before endpoints, as the dispatcher locks them. The endpoint is read once
		// nobody deletes or disables it any more.
		if _, err := tx.Exec(ctx, `
			SELECT FROM webhook_deliveries WHERE merchant_id = $1 AND endpoint_id = $2 AND id = $3 FOR NO KEY UPDATE`, merchantID, endpointID, id); err != nil {
			return fmt.Errorf("lock delivery: %w", err)
		}
		e, err := s.one(tx.Query(ctx, selectEndpoint+`merchant_id = $1 AND id = $2 FOR SHARE`, merchantID, endpointID))
		if err != nil {
			return err
		}
		if e.DisabledReason != "" {
			return errDisabled()
		}
		if _, err := tx.Exec(ctx, `
			UPDATE webhook_deliveries SET state = 'pending', tries = 0, due_at = now(), owner = NULL, settled_at = NULL
			WHERE merchant_id = $1 AND endpoint_id = $2 AND id = $3 AND (owner IS NULL OR due_at <= now())`, merchantID, endpointID, id); err != nil {
			return fmt.Errorf("redeliver: %w", err)
		}
		rows, err := tx.Query(ctx, selectDelivery+`id = $3`, merchantID, endpointID, id)
		if err != nil {
			return fmt.Errorf("read delivery: %w", err)
		}
		d, err = pgx.CollectExactlyOneRow(rows, scanDelivery)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoDelivery()
		}
		return err
	})
	if err != nil {
		return Delivery{}, err
	}
	page := []Delivery{d}
	err = s.readAttempts(ctx, merchantID, page)
	return page[0], err
}

func errNoDelivery() *payment.Error {
	return payment.Errorf(payment.CodeNotFound, "There is no such delivery.")
}
