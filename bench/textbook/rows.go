package textbook

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Exec runs a statement in the transaction at hand.
type Exec func(ctx context.Context, sql string, args ...any) error

func in(tx pgx.Tx) Exec {
	return func(ctx context.Context, sql string, args ...any) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}
}

// Line of an order.
type Line struct {
	SKU        string `json:"sku"`
	Quantity   int64  `json:"quantity"`
	UnitAmount int64  `json:"unit_amount"`
}

// Payment is what a client asks for, with the ids that it was given.
type Payment struct {
	ID, OrderID, SagaID, MerchantID string
	Amount                          int64
	Currency                        string
	Method                          string
	Customer, Email, Reference      string
	Lines                           []Line
}

// Place writes the order, the payment, the saga and the first event.
func Place(ctx context.Context, exec Exec, p Payment) error {
	if err := exec(ctx, `
		INSERT INTO orders (id, merchant_id, reference, customer, email, currency, amount, status, sequence)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'placed', 1)`,
		p.OrderID, p.MerchantID, p.Reference, p.Customer, p.Email, p.Currency, p.Amount); err != nil {
		return fmt.Errorf("insert the order: %w", err)
	}
	for n, l := range p.Lines {
		if err := exec(ctx, `INSERT INTO order_lines (order_id, line, sku, quantity, unit_amount) VALUES ($1, $2, $3, $4, $5)`,
			p.OrderID, n, l.SKU, l.Quantity, l.UnitAmount); err != nil {
			return fmt.Errorf("insert a line: %w", err)
		}
	}
	if err := exec(ctx, `
		INSERT INTO payments (id, merchant_id, order_id, status, currency, amount, payment_method)
		VALUES ($1, $2, $3, 'processing', $4, $5, $6)`,
		p.ID, p.MerchantID, p.OrderID, p.Currency, p.Amount, p.Method); err != nil {
		return fmt.Errorf("insert the payment: %w", err)
	}
	if err := exec(ctx, `INSERT INTO sagas (id, payment_id, state) VALUES ($1, $2, 'running')`, p.SagaID, p.ID); err != nil {
		return fmt.Errorf("insert the saga: %w", err)
	}
	return emit(ctx, exec, p, 1, "order.placed", map[string]any{
		"amount": p.Amount, "currency": p.Currency, "customer": p.Customer, "reference": p.Reference, "lines": p.Lines,
	})
}

// Reserve takes the lines from stock.
func Reserve(ctx context.Context, exec Exec, p Payment) error {
	for _, l := range p.Lines {
		if err := exec(ctx, `UPDATE stock SET on_hand = on_hand - $3, reserved = reserved + $3 WHERE merchant_id = $1 AND sku = $2`,
			p.MerchantID, l.SKU, l.Quantity); err != nil {
			return fmt.Errorf("reserve stock: %w", err)
		}
	}
	return advance(ctx, exec, p, 0, "", "stock.reserved")
}

// Authorize records the provider's authorization.
func Authorize(ctx context.Context, exec Exec, p Payment, reference string) error {
	if err := exec(ctx, `UPDATE payments SET authorization_reference = $2, updated_at = now() WHERE id = $1`, p.ID, reference); err != nil {
		return fmt.Errorf("record the authorization: %w", err)
	}
	return advance(ctx, exec, p, 1, reference, "payment.authorized")
}

// Capture records the provider's capture.
func Capture(ctx context.Context, exec Exec, p Payment, reference string) error {
	if err := exec(ctx, `
		UPDATE payments SET status = 'succeeded', amount_captured = amount, capture_reference = $2, updated_at = now()
		WHERE id = $1`, p.ID, reference); err != nil {
		return fmt.Errorf("record the capture: %w", err)
	}
	return advance(ctx, exec, p, 2, reference, "payment.captured")
}

// Confirm ends the saga: the stock is sold.
func Confirm(ctx context.Context, exec Exec, p Payment) error {
	for _, l := range p.Lines {
		if err := exec(ctx, `UPDATE stock SET reserved = reserved - $3, sold = sold + $3 WHERE merchant_id = $1 AND sku = $2`,
			p.MerchantID, l.SKU, l.Quantity); err != nil {
			return fmt.Errorf("sell stock: %w", err)
		}
	}
	if err := exec(ctx, `UPDATE orders SET status = 'confirmed' WHERE id = $1`, p.OrderID); err != nil {
		return fmt.Errorf("confirm the order: %w", err)
	}
	if err := exec(ctx, `UPDATE sagas SET state = 'completed' WHERE id = $1`, p.SagaID); err != nil {
		return fmt.Errorf("complete the saga: %w", err)
	}
	return advance(ctx, exec, p, 3, "", "order.confirmed")
}

// Fail frees the stock of a payment whose card was declined.
func Fail(ctx context.Context, exec Exec, p Payment) error {
	for _, l := range p.Lines {
		if err := exec(ctx, `UPDATE stock SET reserved = reserved - $3, on_hand = on_hand + $3 WHERE merchant_id = $1 AND sku = $2`,
			p.MerchantID, l.SKU, l.Quantity); err != nil {
			return fmt.Errorf("free stock: %w", err)
		}
	}
	for _, sql := range []string{
		`UPDATE payments SET status = 'failed', updated_at = now() WHERE id = $1`,
		`UPDATE orders SET status = 'canceled' WHERE id = (SELECT order_id FROM payments WHERE id = $1)`,
		`UPDATE sagas SET state = 'failed' WHERE payment_id = $1`,
	} {
		if err := exec(ctx, sql, p.ID); err != nil {
			return fmt.Errorf("fail the payment: %w", err)
		}
	}
	return emit(ctx, exec, p, 3, "payment.failed", nil)
}

// advance ends a step: its attempt, the saga's next step, the order's sequence and the event.
func advance(ctx context.Context, exec Exec, p Payment, step int, reference, event string) error {
	if err := exec(ctx, `INSERT INTO saga_attempts (saga_id, step, outcome, reference) VALUES ($1, $2, 'succeeded', $3)`,
		p.SagaID, step, reference); err != nil {
		return fmt.Errorf("insert the attempt: %w", err)
	}
	if err := exec(ctx, `UPDATE sagas SET step = $2, due_at = now(), updated_at = now() WHERE id = $1`, p.SagaID, step+1); err != nil {
		return fmt.Errorf("advance the saga: %w", err)
	}
	if err := exec(ctx, `UPDATE orders SET sequence = $2 WHERE id = $1`, p.OrderID, step+2); err != nil {
		return fmt.Errorf("draw the sequence: %w", err)
	}
	return emit(ctx, exec, p, step+2, event, nil)
}

func emit(ctx context.Context, exec Exec, p Payment, sequence int, kind string, data map[string]any) error {
	if data == nil {
		data = map[string]any{}
	}
	data["payment_id"], data["order_id"], data["merchant_id"] = p.ID, p.OrderID, p.MerchantID
	payload, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if err := exec(ctx, `INSERT INTO outbox (id, key, sequence, type, payload) VALUES ($1, $2, $3, $4, $5)`,
		fmt.Sprintf("%s-%d", p.OrderID, sequence), p.OrderID, sequence, kind, string(payload)); err != nil {
		return fmt.Errorf("insert the event: %w", err)
	}
	return nil
}
