package readmodel

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/postgres"
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

const refundColumns = `r.refund_id, r.payment_id, r.amount, r.reason, r.status, r.failure_code, r.created_at, r.updated_at`

func scanRefund(row pgx.CollectableRow) (r Refund, err error) {
	var reason, code *string
	err = row.Scan(&r.ID, &r.PaymentID, &r.Amount, &reason, &r.Status, &code, &r.CreatedAt, &r.UpdatedAt)
	if reason != nil {
		r.Reason = *reason
	}
	if code != nil {
		r.FailureCode = *code
	}
	r.CreatedAt, r.UpdatedAt = r.CreatedAt.UTC(), r.UpdatedAt.UTC()
	return r, err
}

// Refunds of a payment, oldest first by their ids: at most limit of those behind
// after, which is empty at first.
func (q *Queries) Refunds(ctx context.Context, scope access.Scope, paymentID, after string, limit int) ([]Refund, error) {
	p, err := q.Get(ctx, scope, paymentID)
	if err != nil {
		return nil, err
	}
	rows, err := postgres.Query(ctx, q.pool, `SELECT `+refundColumns+`
		FROM refund_view r WHERE r.merchant_id = $1 AND r.payment_id = $2 AND r.refund_id > $3 ORDER BY r.refund_id LIMIT $4`,
		p.MerchantID, p.ID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read refunds: %w", err)
	}
	refunds, err := pgx.CollectRows(rows, scanRefund)
	if err != nil {
		return nil, fmt.Errorf("read refunds: %w", err)
	}
	for i := range refunds {
		refunds[i].Currency = p.Currency
	}
	return refunds, nil
}

// upsertRefunds keeps what the first event told of the refund and moves on what
// the newest does.
const upsertRefunds = `
	INSERT INTO refund_view AS v (merchant_id, payment_id, refund_id, amount, reason, status, failure_code, created_at, updated_at)
	SELECT merchant_id, payment_id, refund_id, amount, nullif(reason, ''), status, nullif(failure_code, ''), created_at, updated_at
	FROM json_to_recordset($1::json) AS r (merchant_id text, payment_id text, refund_id text, amount bigint, reason text,
		status text, failure_code text, created_at timestamptz, updated_at timestamptz)
	ON CONFLICT (merchant_id, payment_id, refund_id) DO UPDATE SET
		status = excluded.status, failure_code = excluded.failure_code, updated_at = excluded.updated_at`

type refundRow struct {
	MerchantID  string               `json:"merchant_id"`
	PaymentID   string               `json:"payment_id"`
	RefundID    string               `json:"refund_id"`
	Amount      int64                `json:"amount"`
	Reason      string               `json:"reason"`
	Status      payment.RefundStatus `json:"status"`
	FailureCode string               `json:"failure_code"`
	CreatedAt   time.Time            `json:"created_at"`
	UpdatedAt   time.Time            `json:"updated_at"`
}

// refundsOf is each refund that the events, each of which moved its payment, tell
// of, as the last of them tells it.
func refundsOf(events []event) []*refundRow {
	var rows []*refundRow
	byID := map[string]*refundRow{}
	for _, e := range events {
		r := e.Data.Refund
		if !e.known || r == nil {
			continue
		}
		row := byID[r.ID]
		if row == nil {
			row = &refundRow{
				MerchantID: e.Data.MerchantID, PaymentID: e.Data.PaymentID, RefundID: r.ID, Amount: r.Amount, Reason: r.Reason, CreatedAt: e.At,
			}
			rows, byID[r.ID] = append(rows, row), row
		}
		row.Status, row.FailureCode, row.UpdatedAt = r.Status, r.FailureCode, e.At
	}
	return rows
}
