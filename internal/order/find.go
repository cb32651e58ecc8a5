package order

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
	"payments/internal/saga"
)

// About names payments as people know them, by one of the three. A reference may be of
// orders of several merchants, and of several orders of one.
type About struct{ Payment, Order, Reference string }

// Named is a payment that somebody named.
type Named struct{ MerchantID, PaymentID, OrderID string }

// Find gives the payments, oldest first. By a reference it finds live and confirmed orders;
// the others have no index here, and the read model or FindEnded knows them.
func (o Operations) Find(ctx context.Context, a About) ([]Named, error) {
	switch {
	case a.Payment != "":
		return o.FindPayments(ctx, []string{a.Payment})
	case a.Order != "":
		return o.named(ctx, `
			SELECT p.* FROM merchants m, LATERAL (SELECT merchant_id, id, order_id FROM payments WHERE merchant_id = m.id AND order_id = $1 LIMIT 1) p
			ORDER BY id`, a.Order)
	}
	// By orders_one_live_or_won.
	return o.named(ctx, `
		SELECT p.* FROM merchants m,
			LATERAL (SELECT id FROM orders WHERE merchant_id = m.id AND reference = $1 AND status IN ('placed', 'confirmed') LIMIT 1) o,
			LATERAL (SELECT merchant_id, id, order_id FROM payments WHERE merchant_id = m.id AND order_id = o.id LIMIT 1) p
		ORDER BY id`, a.Reference)
}

// FindPayments gives those that exist.
func (o Operations) FindPayments(ctx context.Context, ids []string) ([]Named, error) {
	return o.named(ctx, `SELECT merchant_id, id, order_id FROM payments WHERE id = ANY ($1) ORDER BY id`, ids)
}

// FindEnded reads all orders for a reference, within the session's statement_timeout.
func (o Operations) FindEnded(ctx context.Context, reference string) ([]Named, error) {
	return o.named(ctx, `
		SELECT p.merchant_id, p.id, p.order_id FROM orders o JOIN payments p ON p.merchant_id = o.merchant_id AND p.order_id = o.id
		WHERE o.reference = $1 ORDER BY p.id LIMIT 1000`, reference)
}

func (o Operations) named(ctx context.Context, sql string, arg any) ([]Named, error) {
	rows, err := postgres.Query(ctx, o.orders.Pool, sql, arg)
	if err != nil {
		return nil, fmt.Errorf("find payments: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Named])
	if err != nil {
		return nil, fmt.Errorf("find payments: %w", err)
	}
	return found, nil
}

// Subjects are what sagas of the payments move: the orders, the refunds, and the payments themselves.
func (o Operations) Subjects(ctx context.Context, payments []Named) ([]saga.Subject, error) {
	subjects := []saga.Subject{} // none, which is not all
	var merchants, ids []string
	for _, p := range payments {
		subjects = append(subjects, saga.Subject{MerchantID: p.MerchantID, ID: p.OrderID}, saga.Subject{MerchantID: p.MerchantID, ID: p.PaymentID})
		merchants, ids = append(merchants, p.MerchantID), append(ids, p.PaymentID)
	}
	rows, err := o.orders.Pool.Query(ctx, `
		SELECT r.merchant_id, r.id FROM unnest($1::text[], $2::text[]) AS p (merchant_id, id), LATERAL (
			SELECT merchant_id, id FROM refunds WHERE merchant_id = p.merchant_id AND payment_id = p.id ORDER BY id LIMIT 1000) r`, merchants, ids)
	if err != nil {
		return nil, fmt.Errorf("find refunds: %w", err)
	}
	refunds, err := pgx.CollectRows(rows, pgx.RowToStructByPos[saga.Subject])
	if err != nil {
		return nil, fmt.Errorf("find refunds: %w", err)
	}
	return append(subjects, refunds...), nil
}
