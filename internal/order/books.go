package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/provider"
	"payments/internal/saga"
)

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// readBooks reads what is written down of one payment. Error: errNoPayment.
func readBooks(ctx context.Context, q querier, merchantID, paymentID string) (books, error) {
	b := books{merchantID: merchantID, paymentID: paymentID}
	// Searches have the payment's id as their subject, or that with a number behind a slash.
	err := q.QueryRow(ctx, `
		SELECT p.order_id, o.sequence, p.status, p.currency, p.amount, p.amount_captured, p.amount_refunded, p.amount_refunding,
			coalesce(p.authorization_reference, ''), coalesce(p.capture_reference, ''),
			coalesce(s.id, ''), coalesce(s.step, ''), coalesce(s.state, 'completed'), coalesce(s.awaiting, false),
			coalesce(s.attempted OR s.intent, false), s.abort IS NOT NULL,
			EXISTS (SELECT FROM sagas f WHERE f.merchant_id = p.merchant_id AND f.definition = $4 AND f.subject >= p.id AND f.subject < p.id || '0'
				AND f.state IN ('running', 'compensating', 'parked'))
		FROM payments p
			JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id
			LEFT JOIN sagas s ON s.merchant_id = p.merchant_id AND s.definition = ANY ($3) AND s.subject = p.order_id
		WHERE p.merchant_id = $1 AND p.id = $2`, merchantID, paymentID, []string{sagaAutomatic, sagaManual}, sagaOrphan).
		Scan(&b.orderID, &b.sequence, &b.status, &b.currency, &b.amount, &b.captured, &b.refunded, &b.refunding, &b.authorization, &b.capture,
			&b.saga.id, &b.saga.step, &b.saga.state, &b.saga.awaiting, &b.saga.attempted, &b.saga.aborted, &b.searching)
	if errors.Is(err, pgx.ErrNoRows) {
		return b, errNoPayment
	}
	if err != nil {
		return b, fmt.Errorf("read payment: %w", err)
	}
	rows, err := q.Query(ctx, `
		SELECT r.id, coalesce(r.provider_reference, ''), coalesce(s.id, ''), coalesce(r.reason, ''), r.amount, r.status
		FROM refunds r LEFT JOIN sagas s ON s.merchant_id = r.merchant_id AND s.definition = $3 AND s.subject = r.id
		WHERE r.merchant_id = $1 AND r.payment_id = $2 ORDER BY r.id`, merchantID, paymentID, sagaRefund)
	if err != nil {
		return b, fmt.Errorf("read refunds: %w", err)
	}
	b.refunds, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r refundBook, err error) {
		var sagaID string
		err = row.Scan(&r.id, &r.reference, &sagaID, &r.reason, &r.amount, &r.status)
		if sagaID != "" {
			r.key = saga.Key(sagaID, stepRefund)
		}
		return r, err
	})
	if err != nil {
		return b, fmt.Errorf("read refunds: %w", err)
	}
	rows, err = q.Query(ctx, `
		SELECT id, provider_reference, status, amount, reason, respond_by FROM disputes
		WHERE merchant_id = $1 AND payment_id = $2 ORDER BY id`, merchantID, paymentID)
	if err != nil {
		return b, fmt.Errorf("read disputes: %w", err)
	}
	b.disputes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d disputeBook, err error) {
		var respondBy *time.Time
		err = row.Scan(&d.id, &d.reference, &d.status, &d.amount, &d.reason, &respondBy)
		if respondBy != nil {
			d.respondBy = *respondBy
		}
		return d, err
	})
	if err != nil {
		return b, fmt.Errorf("read disputes: %w", err)
	}
	return b, nil
}

func (b books) named() provider.Payment {
	return provider.Payment{Reference: b.paymentID, Authorization: b.authorization}
}

func (b books) refundIDs() (ids []string) {
	for _, r := range b.refunds {
		ids = append(ids, r.id)
	}
	return ids
}

func (b books) data() sagaData {
	return sagaData{MerchantID: b.merchantID, OrderID: b.orderID, PaymentID: b.paymentID, Amount: b.amount, Currency: b.currency}
}
