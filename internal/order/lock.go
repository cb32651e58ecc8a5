package order

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/saga"
)

// Lock takes the locks of a commit in the one order that all transactions of this
// package keep, so that none can deadlock: sagas, orders by id, their payments with
// them, stock by sku.
func (s *Service) Lock(ctx context.Context, tx pgx.Tx, merchantID string, turns []saga.Turn) error {
	var orders, stocked []string
	for _, t := range turns {
		d, err := decode(t.Saga.Data)
		if err != nil {
			return err
		}
		orders = append(orders, d.OrderID)
		for _, step := range t.Locals {
			if step == stepReserve || step == stepConfirm || step == undoReserve {
				stocked = append(stocked, d.OrderID)
			}
		}
	}
	if err := lockOrders(ctx, tx, merchantID, orders); err != nil {
		return err
	}
	if len(stocked) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		SELECT 1 FROM stock WHERE merchant_id = $1 AND sku IN (
			SELECT sku FROM order_lines WHERE merchant_id = $1 AND order_id = ANY ($2))
		ORDER BY sku FOR NO KEY UPDATE`, merchantID, stocked); err != nil {
		return fmt.Errorf("lock stock: %w", err)
	}
	return nil
}

func lockOrders(ctx context.Context, tx pgx.Tx, merchantID string, ids []string) error {
	if _, err := tx.Exec(ctx, `
		SELECT 1 FROM orders WHERE merchant_id = $1 AND id = ANY ($2) ORDER BY id FOR NO KEY UPDATE`, merchantID, ids); err != nil {
		return fmt.Errorf("lock orders: %w", err)
	}
	return nil
}
