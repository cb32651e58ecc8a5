package order

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/saga"
)

// reserveStock takes every article of the order or none. It locks the articles
// in the order of their sku, so that two baskets cannot deadlock.
func (s *Service) reserveStock(ctx context.Context, tx pgx.Tx, i *saga.Instance) (saga.Outcome, error) {
	d, err := decode(i.Data)
	if err != nil {
		return saga.Outcome{}, err
	}
	rows, err := tx.Query(ctx, `
		WITH wanted AS (SELECT sku, sum(quantity) AS quantity FROM order_lines
		                WHERE merchant_id = $1 AND order_id = $2 GROUP BY sku),
		     held AS (SELECT sku, on_hand FROM stock
		              WHERE merchant_id = $1 AND sku IN (SELECT sku FROM wanted) ORDER BY sku FOR NO KEY UPDATE)
		SELECT coalesce(held.on_hand, -1) AS on_hand, wanted.quantity::bigint AS quantity FROM wanted LEFT JOIN held USING (sku)`,
		d.MerchantID, d.OrderID)
	if err != nil {
		return saga.Outcome{}, fmt.Errorf("lock stock: %w", err)
	}
	type article struct{ OnHand, Quantity int64 }
	articles, err := pgx.CollectRows(rows, pgx.RowToStructByPos[article])
	if err != nil {
		return saga.Outcome{}, fmt.Errorf("lock stock: %w", err)
	}
	for _, a := range articles {
		if a.OnHand >= a.Quantity {
			continue
		}
		f := payment.Failure{Code: codeNoStock, Step: stepReserve, Message: "There is not enough stock of an article."}
		if a.OnHand < 0 {
			f = payment.Failure{Code: codeUnknownSKU, Step: stepReserve, Message: "The merchant has no stock of an article's sku."}
		}
		o := saga.Outcome{Verdict: saga.Rejected, Code: f.Code, Detail: f.Message}
		i.Attempts[0].Outcome, i.Attempts[0].Code = o.Verdict, o.Code
		return o, s.refuse(ctx, tx, i, &d, payment.EventStockRejected, f)
	}
	if _, err := tx.Exec(ctx, `
		WITH wanted AS (INSERT INTO stock_reservations (merchant_id, order_id, sku, quantity, state)
		                SELECT merchant_id, order_id, sku, sum(quantity), 'reserved' FROM order_lines
		                WHERE merchant_id = $1 AND order_id = $2 GROUP BY merchant_id, order_id, sku
		                RETURNING merchant_id, sku, quantity)
		UPDATE stock s SET on_hand = s.on_hand - w.quantity, reserved = s.reserved + w.quantity, updated_at = now()
		FROM wanted w WHERE s.merchant_id = w.merchant_id AND s.sku = w.sku`, d.MerchantID, d.OrderID); err != nil {
		return saga.Outcome{}, fmt.Errorf("reserve stock: %w", err)
	}
	return saga.Outcome{Verdict: saga.Succeeded}, s.emit(ctx, tx, i, payment.EventStockReserved, d.event())
}

func (s *Service) releaseStock(ctx context.Context, tx pgx.Tx, i *saga.Instance) (saga.Outcome, error) {
	d, err := decode(i.Data)
	if err != nil {
		return saga.Outcome{}, err
	}
	if err := settle(ctx, tx, d, "released"); err != nil {
		return saga.Outcome{}, err
	}
	return saga.Outcome{Verdict: saga.Succeeded}, s.emit(ctx, tx, i, payment.EventStockReleased, d.event())
}

// settle ends the order's reservations, as sold or released. It does nothing the
// second time.
func settle(ctx context.Context, tx pgx.Tx, d sagaData, state string) error {
	if _, err := tx.Exec(ctx, `
		SELECT 1 FROM stock WHERE merchant_id = $1 AND sku IN (
			SELECT sku FROM stock_reservations WHERE merchant_id = $1 AND order_id = $2)
		ORDER BY sku FOR NO KEY UPDATE`, d.MerchantID, d.OrderID); err != nil {
		return fmt.Errorf("lock stock: %w", err)
	}
	_, err := tx.Exec(ctx, `
		WITH ended AS (UPDATE stock_reservations SET state = $3
		               WHERE merchant_id = $1 AND order_id = $2 AND state = 'reserved'
		               RETURNING merchant_id, sku, quantity)
		UPDATE stock s SET reserved = s.reserved - e.quantity, updated_at = now(),
			on_hand = s.on_hand + CASE WHEN $3 = 'released' THEN e.quantity ELSE 0 END,
			sold = s.sold + CASE WHEN $3 = 'sold' THEN e.quantity ELSE 0 END
		FROM ended e WHERE s.merchant_id = e.merchant_id AND s.sku = e.sku`, d.MerchantID, d.OrderID, state)
	if err != nil {
		return fmt.Errorf("settle stock: %w", err)
	}
	return nil
}

// StockLevel is what a merchant has of an article, in units.
type StockLevel struct {
	MerchantID, SKU        string
	OnHand, Reserved, Sold int64
}

// Stock lists the levels of one merchant, or of all when merchantID is empty, in the
// order of merchant and sku: at most limit of those behind after, which is the zero
// level at first.
func (s *Service) Stock(ctx context.Context, merchantID string, after StockLevel, limit int) ([]StockLevel, error) {
	rows, err := postgres.Query(ctx, s.Pool, `
		SELECT merchant_id, sku, on_hand, reserved, sold FROM stock
		WHERE ($1 = '' OR merchant_id = $1) AND (merchant_id, sku) > ($2::text COLLATE "C", $3::text COLLATE "C")
		ORDER BY merchant_id, sku LIMIT $4`, merchantID, after.MerchantID, after.SKU, limit)
	if err != nil {
		return nil, fmt.Errorf("list stock: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[StockLevel])
}

// SetStock sets what is on hand, all of it or nothing; the difference counts as
// received. An unknown merchant is a *payment.Error not_found; more than
// payment.MaxOnHand with what is reserved is validation_failed.
func (s *Service) SetStock(ctx context.Context, stock []payment.Stock) ([]StockLevel, error) {
	return SetStock(ctx, s.Pool, stock)
}

// SetStock is for a caller that places no orders.
func SetStock(ctx context.Context, pool *pgxpool.Pool, stock []payment.Stock) ([]StockLevel, error) {
	var levels []StockLevel
	err := postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		levels = make([]StockLevel, len(stock))
		merchants, skus, onHand := make([]string, len(stock)), make([]string, len(stock)), make([]int64, len(stock))
		for n, v := range stock {
			merchants[n], skus[n], onHand[n] = v.MerchantID(), v.SKU(), v.OnHand()
		}
		// The rows are written in the order of their key, as everywhere, so that nothing deadlocks.
		rows, err := tx.Query(ctx, `
			INSERT INTO stock AS s (merchant_id, sku, received, on_hand)
			SELECT merchant_id, sku, on_hand, on_hand FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n (merchant_id, sku, on_hand)
			ORDER BY merchant_id COLLATE "C", sku COLLATE "C" -- as the columns', whatever the database's
			ON CONFLICT (merchant_id, sku) DO UPDATE SET on_hand = excluded.on_hand,
				received = s.received + excluded.on_hand - s.on_hand, updated_at = now()
			WHERE excluded.on_hand + s.reserved <= $4
			RETURNING merchant_id, sku, on_hand, reserved, sold`, merchants, skus, onHand, payment.MaxOnHand)
		if err != nil {
			return err
		}
		if levels, err = pgx.CollectRows(rows, pgx.RowToStructByPos[StockLevel]); err != nil {
			return err
		}
		if len(levels) == len(stock) {
			return nil
		}
		for _, v := range stock {
			if !slices.ContainsFunc(levels, func(l StockLevel) bool { return l.MerchantID == v.MerchantID() && l.SKU == v.SKU() }) {
				return payment.Errorf(payment.CodeInvalid, "Of %s, %d cannot be on hand: with the units that are reserved, and may come back, there would be more than %d.",
					v.SKU(), v.OnHand(), payment.MaxOnHand)
			}
		}
		return nil
	})
	if postgres.Constraint(err) == "stock_merchant_id_fkey" {
		return nil, payment.Errorf(payment.CodeNotFound, "There is no such merchant.").Because(err)
	}
	if err != nil {
		return nil, fmt.Errorf("set stock: %w", err)
	}
	return levels, nil
}
