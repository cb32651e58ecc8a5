package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"payments/internal/outbox"
	"payments/internal/postgres"
	"payments/internal/saga"
)

// The rows as they are written.
type (
	writtenOrder struct {
		ID       string    `sql:"id text"`
		Status   string    `sql:"status text"`
		Sequence int64     `sql:"sequence bigint"`
		At       time.Time `sql:"at timestamptz"`
	}
	writtenPayment struct {
		ID             string `sql:"id text"`
		Status         string `sql:"status text"`
		Captured       int64  `sql:"captured bigint"`
		Refunded       int64  `sql:"refunded bigint"`
		Refunding      int64  `sql:"refunding bigint"`
		Authorization  string `sql:"authorization_reference text"`
		Capture        string `sql:"capture_reference text"`
		Account        string `sql:"account text"`
		FailureCode    string `sql:"failure_code text"`
		FailureStep    string `sql:"failure_step text"`
		FailureMessage string `sql:"failure_message text"`
	}
	writtenRefund struct {
		ID          string    `sql:"id text"`
		PaymentID   string    `sql:"payment_id text"`
		Amount      int64     `sql:"amount bigint"`
		Reason      string    `sql:"reason text"`
		Status      string    `sql:"status text"`
		FailureCode string    `sql:"failure_code text"`
		Reference   string    `sql:"reference text"`
		CreatedAt   time.Time `sql:"created_at timestamptz"`
		UpdatedAt   time.Time `sql:"updated_at timestamptz"`
	}
	writtenReservation struct {
		OrderID  string `sql:"order_id text"`
		SKU      string `sql:"sku text"`
		Quantity int64  `sql:"quantity bigint"`
		State    string `sql:"state text"`
	}
	writtenStock struct {
		SKU      string `sql:"sku text"`
		OnHand   int64  `sql:"on_hand bigint"`
		Reserved int64  `sql:"reserved bigint"`
		Sold     int64  `sql:"sold bigint"`
	} // by how much
)

// write is Queue for who has no other statements.
func (u *unit) write(ctx context.Context) error {
	var b pgx.Batch
	if err := u.Queue(&b); err != nil {
		return err
	}
	if err := u.tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("write what changed: %w", err)
	}
	return nil
}

// again runs a transaction, and runs it anew as long as what it is about is overtaken, up to
// three times in all.
func (s *Service) again(ctx context.Context, do func(tx pgx.Tx) error) (err error) {
	for range 3 {
		if err = postgres.InTx(ctx, s.Pool, do); !errors.Is(err, saga.ErrOvertaken) {
			break
		}
	}
	return err
}

// Queue adds a statement for each table of which rows have changed. Every row is locked, by
// itself or by its order, so that each statement writes exactly the rows it was given.
func (u *unit) Queue(b *pgx.Batch) error {
	u.writeReservations(b)
	u.writeOrders(b)
	u.writePayments(b)
	u.writeRefunds(b)
	if err := outbox.Queue(b, u.events...); err != nil {
		return err
	}
	u.writeStock(b)
	return nil
}

// queue adds a statement that writes exactly these rows; $2 is their first column. Maintenance
// that locks no order (of keys, of accounts) may move a payment's row meanwhile: the transaction
// is then made again.
func queue[R any](b *pgx.Batch, merchantID, table string, rows []R, sql string) {
	if len(rows) == 0 {
		return
	}
	b.Queue(sql, postgres.Columns(rows, merchantID)...).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(len(rows)) {
			return fmt.Errorf("%d rows of %s were written, not %d: %w", tag.RowsAffected(), table, len(rows), saga.ErrOvertaken)
		}
		return nil
	})
}

func (u *unit) writeOrders(b *pgx.Batch) {
	var rows []writtenOrder
	for _, o := range changed(u.orders, func(o *orderRow) bool { return o.changed }) {
		rows = append(rows, writtenOrder{ID: o.id, Status: o.status, Sequence: o.sequence, At: later(o.at, u.now)})
	}
	queue(b, u.merchantID, "orders", rows, `
		UPDATE orders o SET status = v.status, sequence = v.sequence, updated_at = v.at
		FROM `+postgres.Located[writtenOrder](2, "orders", "id")+` v WHERE o.ctid = v.ctid`)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func (u *unit) writePayments(b *pgx.Batch) {
	var rows []writtenPayment
	for _, p := range changed(u.payments, func(p *paymentRow) bool { return p.changed }) {
		rows = append(rows, writtenPayment{
			ID: p.id, Status: string(p.status), Captured: p.captured, Refunded: p.refunded, Refunding: p.refunding,
			Authorization: p.authorization, Capture: p.capture, Account: p.account,
			FailureCode: p.failureCode, FailureStep: p.failureStep, FailureMessage: p.failureMessage,
		})
	}
	queue(b, u.merchantID, "payments", rows, `
		UPDATE payments p SET status = v.status, amount_captured = v.captured, amount_refunded = v.refunded, amount_refunding = v.refunding,
			authorization_reference = nullif(v.authorization_reference, ''), capture_reference = nullif(v.capture_reference, ''),
			provider_account = nullif(v.account, ''), failure_code = nullif(v.failure_code, ''), failure_step = nullif(v.failure_step, ''),
			failure_message = nullif(v.failure_message, ''), updated_at = now()
		FROM `+postgres.Located[writtenPayment](2, "payments", "id")+` v WHERE p.ctid = v.ctid`)
}

func (u *unit) writeRefunds(b *pgx.Batch) {
	var inserted, updated []writtenRefund
	for _, r := range changed(u.refunds, func(r *refundRow) bool { return r.changed }) {
		row := writtenRefund{
			ID: r.id, PaymentID: r.paymentID, Amount: r.amount, Reason: r.reason, Status: string(r.status), FailureCode: r.failureCode,
			Reference: r.reference, CreatedAt: r.createdAt, UpdatedAt: r.updatedAt,
		}
		if r.isNew {
			inserted = append(inserted, row)
		} else {
			updated = append(updated, row)
		}
	}
	queue(b, u.merchantID, "refunds", inserted, `
		INSERT INTO refunds (merchant_id, id, payment_id, amount, reason, status, failure_code, provider_reference, created_at, updated_at)
		SELECT $1, id, payment_id, amount, nullif(reason, ''), status, nullif(failure_code, ''), nullif(reference, ''), created_at, updated_at
		FROM `+postgres.Unnest[writtenRefund](2)+` v`)
	queue(b, u.merchantID, "refunds", updated, `
		UPDATE refunds r SET status = v.status, failure_code = nullif(v.failure_code, ''), provider_reference = nullif(v.reference, ''),
			updated_at = v.updated_at
		FROM `+postgres.Located[writtenRefund](2, "refunds", "id")+` v WHERE r.ctid = v.ctid`)
}

func (u *unit) writeReservations(b *pgx.Batch) {
	var inserted, updated []writtenReservation
	for _, basket := range u.baskets {
		for _, w := range basket {
			row := writtenReservation{OrderID: w.orderID, SKU: w.sku, Quantity: w.quantity, State: w.state}
			switch {
			case w.state == w.was:
			case w.was == "":
				inserted = append(inserted, row)
			default:
				updated = append(updated, row)
			}
		}
	}
	queue(b, u.merchantID, "stock_reservations", inserted, `
		INSERT INTO stock_reservations (merchant_id, order_id, sku, quantity, state) SELECT $1, order_id, sku, quantity, state
		FROM `+postgres.Unnest[writtenReservation](2)+` v`)
	queue(b, u.merchantID, "stock_reservations", updated, `
		UPDATE stock_reservations r SET state = v.state
		FROM `+postgres.Located[writtenReservation](2, "stock_reservations", "order_id", "sku")+` v WHERE r.ctid = v.ctid`)
}

// writeStock is the last to be written: whoever else changes these articles waits from here to
// the commit. Of an article that was read without its lock there may be less by now: the commit
// is then made again.
func (u *unit) writeStock(b *pgx.Batch) {
	var rows []writtenStock
	var unlocked []string
	for _, a := range changed(u.stock, func(a *stockRow) bool { return a.more != movement{} }) {
		rows = append(rows, writtenStock{SKU: a.sku, OnHand: a.more.onHand, Reserved: a.more.reserved, Sold: a.more.sold})
		if !a.locked {
			unlocked = append(unlocked, a.sku)
		}
	}
	if len(rows) == 0 {
		return
	}
	if len(unlocked) > 0 { // in the order of their SKU; the statement below sees them as they are then
		b.Queue(`
			SELECT FROM unnest($2::text[]) AS k (sku), LATERAL (SELECT FROM stock WHERE merchant_id = $1 AND sku = k.sku FOR NO KEY UPDATE) s`,
			u.merchantID, unlocked)
	}
	b.Queue(`
		UPDATE stock s SET on_hand = s.on_hand + v.on_hand, reserved = s.reserved + v.reserved, sold = s.sold + v.sold, updated_at = now()
		FROM `+postgres.Located[writtenStock](2, "stock", "sku")+` v WHERE s.ctid = v.ctid AND s.on_hand + v.on_hand >= 0`,
		postgres.Columns(rows, u.merchantID)...).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(len(rows)) {
			return fmt.Errorf("%d articles are left in the amounts that %d had: %w", tag.RowsAffected(), len(rows), saga.ErrOvertaken)
		}
		return nil
	})
}
