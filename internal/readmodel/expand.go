package readmodel

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// MaxExpansion is how many entries and refunds one payment is expanded with.
const MaxExpansion = 50

// Expanded is what stands beside a payment, the oldest first.
type Expanded struct {
	Timeline                  []Entry
	Refunds                   []Refund
	MoreTimeline, MoreRefunds bool
}

// Expand reads for payments that List or Get gave, with a statement for each kind and
// at most MaxExpansion of it for each payment: by the primary keys.
func (q *Queries) Expand(ctx context.Context, payments []Payment, e Expand) (map[string]Expanded, error) {
	all := make(map[string]Expanded, len(payments))
	merchants, ids, currencies := make([]string, len(payments)), make([]string, len(payments)), make(map[string]string, len(payments))
	for i, p := range payments {
		merchants[i], ids[i], currencies[p.ID] = p.MerchantID, p.ID, p.Currency
	}
	if e.Timeline {
		entries, err := expansion(ctx, q, expandTimeline, merchants, ids, scanEntry)
		if err != nil {
			return nil, fmt.Errorf("expand timelines: %w", err)
		}
		for _, entry := range entries {
			x := all[entry.PaymentID]
			if x.MoreTimeline = len(x.Timeline) == MaxExpansion; !x.MoreTimeline {
				x.Timeline = append(x.Timeline, entry)
			}
			all[entry.PaymentID] = x
		}
	}
	if e.Refunds {
		refunds, err := expansion(ctx, q, expandRefunds, merchants, ids, scanRefund)
		if err != nil {
			return nil, fmt.Errorf("expand refunds: %w", err)
		}
		for _, r := range refunds {
			r.Currency = currencies[r.PaymentID]
			x := all[r.PaymentID]
			if x.MoreRefunds = len(x.Refunds) == MaxExpansion; !x.MoreRefunds {
				x.Refunds = append(x.Refunds, r)
			}
			all[r.PaymentID] = x
		}
	}
	return all, nil
}

const expandTimeline = `
	SELECT l.* FROM unnest($1::text[], $2::text[]) AS h (merchant_id, payment_id) CROSS JOIN LATERAL (
		SELECT ` + entryColumns + ` FROM payment_timeline t
		WHERE t.merchant_id = h.merchant_id AND t.payment_id = h.payment_id ORDER BY t.sequence LIMIT $3) l`

const expandRefunds = `
	SELECT l.* FROM unnest($1::text[], $2::text[]) AS h (merchant_id, payment_id) CROSS JOIN LATERAL (
		SELECT ` + refundColumns + ` FROM refund_view r
		WHERE r.merchant_id = h.merchant_id AND r.payment_id = h.payment_id ORDER BY r.refund_id LIMIT $3) l`

func expansion[T any](ctx context.Context, q *Queries, sql string, merchants, ids []string, scan pgx.RowToFunc[T]) ([]T, error) {
	rows, err := postgres.Query(ctx, q.pool, sql, merchants, ids, MaxExpansion+1)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}
