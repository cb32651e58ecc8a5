package audit

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// state is what both models say of a payment at an order's sequence.
type state struct {
	MerchantID, OrderID string
	Sequence            int64
	Status              string
	Currency            string
	Amount, Captured    int64
	Refunded            int64
	FailureCode         string
	CaptureMethod       string
	Refunds             string // each with its amount and status, in the order of their ids
}

// written is a payment of the write model, with what the read model does not tell.
type written struct {
	state
	Refunding int64 // of refunds under way
	// Searching says that a saga is looking for a hold that came after the order had
	// turned back, to void it.
	Searching bool
}

func readPayments(ctx context.Context, tx pgx.Tx) (map[string]written, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.id, p.merchant_id, p.order_id, o.sequence, p.status, p.currency, p.amount, p.amount_captured, p.amount_refunded,
			coalesce(p.failure_code, ''), p.capture_method, (
				SELECT coalesce(string_agg(id || ' ' || amount || ' ' || status, ', ' ORDER BY id COLLATE "C"), '') FROM refunds r
				WHERE r.merchant_id = p.merchant_id AND r.payment_id = p.id), p.amount_refunding, p.status IN ('failed', 'canceled') AND EXISTS (
				SELECT FROM sagas s WHERE s.merchant_id = p.merchant_id AND s.definition = 'orphan_void'
					AND s.subject >= p.id AND s.subject < p.id || '0' AND s.state NOT IN ('completed', 'compensated'))
		FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id`)
	if err != nil {
		return nil, fmt.Errorf("read the write model: %w", err)
	}
	payments := map[string]written{}
	var id string
	var w written
	if _, err := pgx.ForEachRow(rows, append(w.state.into(&id), &w.Refunding, &w.Searching), func() error {
		payments[id] = w
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the write model: %w", err)
	}
	return payments, nil
}

// into is where a row is read to, in the order of the columns of both models.
func (s *state) into(id *string) []any {
	return []any{
		id, &s.MerchantID, &s.OrderID, &s.Sequence, &s.Status, &s.Currency, &s.Amount, &s.Captured, &s.Refunded, &s.FailureCode, &s.CaptureMethod, &s.Refunds,
	}
}

// views reads the read model, with the number of events each row was told.
func (a Audit) views(ctx context.Context) (map[string]state, error) {
	rows, err := a.Read.Query(ctx, `
		SELECT v.payment_id, v.merchant_id, v.order_id, v.sequence, v.status, v.currency, v.amount, v.amount_captured, v.amount_refunded,
			coalesce(v.failure->>'code', ''), v.capture_method, (
				SELECT coalesce(string_agg(refund_id || ' ' || amount || ' ' || status, ', ' ORDER BY refund_id COLLATE "C"), '') FROM refund_view r
				WHERE r.merchant_id = v.merchant_id AND r.payment_id = v.payment_id)
		FROM payment_view v`)
	if err != nil {
		return nil, fmt.Errorf("read the read model: %w", err)
	}
	views := map[string]state{}
	var id string
	var v state
	if _, err := pgx.ForEachRow(rows, v.into(&id), func() error {
		views[id] = v
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the read model: %w", err)
	}
	return views, nil
}

func compareViews(payments map[string]written, views map[string]state, settled bool) Finding {
	f := Finding{Invariant: 8, Name: "a read-model row equals the write model", Counted: int64(len(views))}
	for id, v := range views {
		p, ok := payments[id]
		switch {
		case !ok:
			f.violate("%s is in the read model only", id)
		case v.Sequence > p.Sequence:
			f.violate("%s is at %d in the read model, at %d in the write model", id, v.Sequence, p.Sequence)
		case v.Sequence == p.Sequence && v != p.state:
			f.violate("%s differs at sequence %d: %+v is written, %+v is read", id, v.Sequence, p.state, v)
		case settled && v.Sequence < p.Sequence:
			f.violate("%s is at %d of %d in the read model", id, v.Sequence, p.Sequence)
		}
	}
	for id := range payments {
		if _, ok := views[id]; settled && !ok {
			f.violate("%s is not in the read model", id)
		}
	}
	return f
}
