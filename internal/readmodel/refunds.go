package readmodel

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/payment"
)

// Refund is a refund as its newest event told of it; Amount is in minor units.
type Refund struct {
	ID, PaymentID string
	Amount        int64
	Currency      string
	Reason        string // empty when none was given
	Status        payment.RefundStatus
	FailureCode   string // empty unless it failed
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// Refunds of a payment, oldest first.
func (q *Queries) Refunds(ctx context.Context, scope access.Scope, paymentID string) ([]Refund, error) {
	p, err := q.Get(ctx, scope, paymentID)
	if err != nil {
		return nil, err
	}
	rows, err := q.pool.Query(ctx, `
		SELECT refund_id, payment_id, amount, $3::text, coalesce(reason, ''), status, coalesce(failure_code, ''), created_at, updated_at
		FROM refund_view WHERE merchant_id = $1 AND payment_id = $2 ORDER BY refund_id`, p.MerchantID, p.ID, p.Currency)
	if err != nil {
		return nil, fmt.Errorf("read refunds: %w", err)
	}
	refunds, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Refund])
	if err != nil {
		return nil, fmt.Errorf("read refunds: %w", err)
	}
	for i := range refunds {
		refunds[i].CreatedAt, refunds[i].UpdatedAt = refunds[i].CreatedAt.UTC(), refunds[i].UpdatedAt.UTC()
	}
	return refunds, nil
}
