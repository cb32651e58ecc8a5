package audit

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
)

// state is what both models say of a payment at an order's sequence.
type state struct {
	MerchantID, OrderID string
	Sequence            int64
	Status              string
	Currency            string
	Amount, Captured    int64
	FailureCode         string
}

type identified struct {
	ID string
	state
}

func readPayments(ctx context.Context, tx pgx.Tx) (map[string]state, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.id, p.merchant_id, p.order_id, o.sequence, p.status, p.currency, p.amount, p.amount_captured, coalesce(p.failure_code, '')
		FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id`)
	return collect(rows, err, "write model")
}

// views reads the read model, with the number of events each row was told.
func (a Audit) views(ctx context.Context) (map[string]state, error) {
	rows, err := a.Read.Query(ctx, `
		SELECT v.payment_id, v.merchant_id, v.order_id, v.sequence, v.status, v.currency, v.amount, v.amount_captured,
			coalesce(v.failure->>'code', '') FROM payment_view v`)
	return collect(rows, err, "read model")
}

func collect(rows pgx.Rows, err error, model string) (map[string]state, error) {
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", model, err)
	}
	states := map[string]state{}
	var i identified
	_, err = pgx.ForEachRow(rows, []any{
		&i.ID, &i.MerchantID, &i.OrderID, &i.Sequence, &i.Status, &i.Currency, &i.Amount, &i.Captured, &i.FailureCode,
	}, func() error {
		states[i.ID] = i.state
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", model, err)
	}
	return states, nil
}

func compareViews(payments, views map[string]state, settled bool) Finding {
	f := Finding{Invariant: 8, Name: "a read-model row equals the write model", Counted: int64(len(views))}
	for id, v := range views {
		p, ok := payments[id]
		switch {
		case !ok:
			f.violate("%s is in the read model only", id)
		case v.Sequence > p.Sequence:
			f.violate("%s is at %d in the read model, at %d in the write model", id, v.Sequence, p.Sequence)
		case v.Sequence == p.Sequence && v != p:
			f.violate("%s differs at sequence %d: %+v is written, %+v is read", id, v.Sequence, p, v)
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

// revalidate sends every stored order through the domain's constructor.
func revalidate(ctx context.Context, tx pgx.Tx) (Finding, error) {
	f := Finding{Invariant: 10, Name: "every stored order passes the domain's constructor"}
	rows, err := tx.Query(ctx, `
		SELECT o.id, o.reference, o.customer_reference, o.currency, o.amount, p.payment_method,
			l.skus, l.quantities, l.amounts
		FROM orders o JOIN payments p ON p.merchant_id = o.merchant_id AND p.order_id = o.id,
			LATERAL (SELECT array_agg(sku::text ORDER BY line) AS skus, array_agg(quantity ORDER BY line) AS quantities,
				array_agg(unit_amount::bigint ORDER BY line) AS amounts
			         FROM order_lines WHERE merchant_id = o.merchant_id AND order_id = o.id) l`)
	if err != nil {
		return f, fmt.Errorf("read orders: %w", err)
	}
	var id string
	var d payment.Draft
	var skus []string
	var quantities, amounts []int64
	_, err = pgx.ForEachRow(rows, []any{
		&id, &d.OrderReference, &d.CustomerReference, &d.Currency, &d.Amount, &d.PaymentMethod, &skus, &quantities, &amounts,
	}, func() error {
		f.Counted++
		d.Lines = d.Lines[:0]
		for n := range skus {
			d.Lines = append(d.Lines, payment.DraftLine{SKU: skus[n], Quantity: quantities[n], UnitAmount: amounts[n]})
		}
		if _, err := payment.NewOrder(d); err != nil {
			f.violate("order %s: %v", id, err)
		}
		return nil
	})
	if err != nil {
		return f, fmt.Errorf("read orders: %w", err)
	}
	return f, nil
}
