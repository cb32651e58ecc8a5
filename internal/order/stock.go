package order

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/saga"
)

// reserve takes every article of the order or none.
func reserve(ctx context.Context, u *unit, _ *saga.Instance, d *sagaData) (saga.Outcome, error) {
	basket, err := u.basket(ctx, d.OrderID)
	if err != nil {
		return saga.Outcome{}, err
	}
	var unknown, short []string
	for _, w := range basket {
		switch a := u.stock[w.sku]; {
		case a == nil:
			unknown = append(unknown, w.sku)
		case a.onHand < w.quantity:
			short = append(short, w.sku)
		}
	}
	if len(unknown) > 0 {
		return saga.Outcome{Verdict: saga.Rejected, Code: codeUnknownSKU, Detail: "The merchant has no stock with the SKU " + listed(unknown) + "."}, nil
	}
	if len(short) > 0 {
		return saga.Outcome{Verdict: saga.Rejected, Code: codeNoStock, Detail: "There is not enough stock of the SKU " + listed(short) + "."}, nil
	}
	for _, w := range basket {
		u.stock[w.sku].move(movement{onHand: -w.quantity, reserved: w.quantity})
		w.state = stockReserved
	}
	return saga.Outcome{Verdict: saga.Succeeded}, nil
}

// listed names up to maxListed SKUs of an order in quotes, since an SKU may have spaces and commas.
func listed(skus []string) string {
	const maxListed = 5
	var b strings.Builder
	for i, sku := range skus[:min(len(skus), maxListed)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(sku))
	}
	if more := len(skus) - maxListed; more > 0 {
		b.WriteString(" and " + strconv.Itoa(more) + " more")
	}
	return b.String()
}

func (a *stockRow) move(m movement) {
	a.onHand += m.onHand
	a.more = movement{a.more.onHand + m.onHand, a.more.reserved + m.reserved, a.more.sold + m.sold}
}

func reserved(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	if o.Verdict == saga.Rejected {
		return refuse(ctx, u, i, d, payment.EventStockRejected, payment.Failure{Code: o.Code, Step: stepReserve, Message: o.Detail})
	}
	return u.emit(ctx, i, payment.EventStockReserved, d.event())
}

func release(ctx context.Context, u *unit, _ *saga.Instance, d *sagaData) (saga.Outcome, error) {
	return saga.Outcome{Verdict: saga.Succeeded}, u.settle(ctx, d, stockReleased)
}

func released(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, _ saga.Outcome) error {
	return u.emit(ctx, i, payment.EventStockReleased, d.event())
}

// settle ends the order's reservations, as sold or released. It does nothing the
// second time.
func (u *unit) settle(ctx context.Context, d *sagaData, state string) error {
	basket, err := u.basket(ctx, d.OrderID)
	if err != nil {
		return err
	}
	for _, w := range basket {
		if w.state != stockReserved {
			continue
		}
		a := u.stock[w.sku]
		if a == nil {
			return fmt.Errorf("the stock of %q is missing", w.sku)
		}
		m := movement{reserved: -w.quantity}
		if w.state = state; state == stockReleased {
			m.onHand = w.quantity
		} else {
			m.sold = w.quantity
		}
		a.move(m)
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
				return v.NoRoom()
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
