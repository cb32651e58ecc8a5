package order

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/saga"
)

// Refunding is a refund that has just been asked for; Amount is in minor units.
type Refunding struct {
	ID, PaymentID string
	Amount        int64
	Currency      string
	Reason        string
	CreatedAt     time.Time
	Sequence      int64 // of the order's event that tells of it
	// Given by persons of the service, this refund included, in minor units: for the payment,
	// and by this person today in this currency. Zero if the merchant asks.
	StaffOfPayment, StaffToday int64
}

// Refund writes the key, the refund, its saga and its event, and takes its amount
// out of what is left to refund, in one transaction; or gives the stored response
// of the request that did so before. Errors: those of Place for the key;
// CodeNotFound, CodeActionNotAllowed, CodeRefundExceeds.
func (s *Service) Refund(ctx context.Context, r idempotency.Request, paymentID string, wanted payment.Refund,
	render func(Refunding) (idempotency.Response, error),
) (resp idempotency.Response, replayed bool, err error) {
	err = s.again(ctx, func(tx pgx.Tx) (err error) {
		resp, replayed, err = idempotency.Once(ctx, tx, r, func() (Refunding, error) {
			return s.insertRefund(ctx, tx, r.MerchantID, paymentID, wanted)
		}, render)
		return err
	})
	if err == nil && !replayed {
		s.Due()
	}
	return resp, replayed, err
}

func (s *Service) insertRefund(ctx context.Context, tx pgx.Tx, merchantID, paymentID string, wanted payment.Refund) (Refunding, error) {
	at, err := readLocked(ctx, tx, merchantID, paymentID)
	if err != nil {
		return Refunding{}, err
	}
	p := at.payment
	if p.Status != payment.StatusSucceeded {
		return Refunding{}, at.refuse("Only a succeeded payment can be refunded.")
	}
	u, err := s.open(ctx, tx, merchantID, touched{orders: []string{p.OrderID}})
	if err != nil {
		return Refunding{}, err
	}
	asked := Refunding{ID: s.IDs.New(payment.PrefixRefund), PaymentID: paymentID, Reason: wanted.Reason()}
	d := sagaData{MerchantID: merchantID, OrderID: p.OrderID, PaymentID: paymentID, RefundID: asked.ID, Currency: p.Currency}
	row, err := u.payment(d.OrderID) // as it is after the lock: what other refunds took is seen
	if err != nil {
		return Refunding{}, err
	}
	d.Capture, d.Account = row.capture, row.account
	left := row.captured - row.refunded - row.refunding
	asked.Amount, asked.Currency = wanted.Amount(left), d.Currency
	if asked.Amount < 1 || asked.Amount > left {
		return Refunding{}, errExceeds()
	}
	d.Amount = asked.Amount
	row.refunding += asked.Amount
	u.refunds[asked.ID] = &refundRow{
		id: asked.ID, paymentID: paymentID, amount: asked.Amount, reason: asked.Reason, status: payment.RefundPending, isNew: true,
	}
	e := d.event()
	e.Refund = &payment.RefundData{ID: asked.ID, Amount: asked.Amount, Reason: asked.Reason, Status: payment.RefundPending}
	if err := u.emit(ctx, nil, payment.EventRefundRequested, e); err != nil {
		return Refunding{}, err
	}
	asked.Sequence, asked.CreatedAt = u.orders[p.OrderID].sequence, u.refunds[asked.ID].createdAt
	err = u.write(ctx)
	if postgres.Constraint(err) == "payments_refunds_bounded" {
		return Refunding{}, errExceeds().Because(err)
	}
	if err != nil {
		return Refunding{}, fmt.Errorf("take the refund out of what is left: %w", err)
	}
	if err := asked.count(ctx, tx, merchantID, wanted.Staff()); err != nil {
		return Refunding{}, err
	}
	raw, err := d.encode()
	if err != nil {
		return Refunding{}, err
	}
	return asked, s.refund().Begin(ctx, tx, saga.Begin{
		MerchantID: merchantID, ID: s.IDs.New(payment.PrefixSaga), Subject: asked.ID, Trace: traceparent(ctx), Data: raw,
	})
}

// count records who of the service gives the refund, and adds up what counts against the
// budgets: all that has not failed. The payment's lock, which the transaction holds, orders its
// refunds; a lock of the person's orders those of other payments.
func (r *Refunding) count(ctx context.Context, tx pgx.Tx, merchantID string, by payment.Staff) error {
	if by == (payment.Staff{}) {
		return nil
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('refunds of ' || lower($1), 0))`, by.Holder); err != nil {
		return fmt.Errorf("lock the person's refunds: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO staff_refunds (merchant_id, refund_id, payment_id, operator, holder, currency, amount, day)
		VALUES ($1, $2, $3, $4, $5, $6, $7, (clock_timestamp() AT TIME ZONE 'UTC')::date)`,
		merchantID, r.ID, r.PaymentID, by.KeyID, by.Holder, r.Currency, r.Amount); err != nil {
		return fmt.Errorf("record who refunds: %w", err)
	}
	// By the indexes staff_refunds_payment and staff_refunds_person.
	err := tx.QueryRow(ctx, `
		SELECT
			(SELECT coalesce(sum(s.amount::bigint), 0)::bigint FROM staff_refunds s JOIN refunds r ON r.merchant_id = s.merchant_id AND r.id = s.refund_id
			 WHERE s.merchant_id = $1 AND s.payment_id = $2 AND r.status <> 'failed'),
			(SELECT coalesce(sum(s.amount::bigint), 0)::bigint FROM staff_refunds s JOIN refunds r ON r.merchant_id = s.merchant_id AND r.id = s.refund_id
			 WHERE lower(s.holder) = lower($3) AND s.day = (SELECT day FROM staff_refunds WHERE merchant_id = $1 AND refund_id = $4) AND s.currency = $5
				AND r.status <> 'failed')`,
		merchantID, r.PaymentID, by.Holder, r.ID, r.Currency).Scan(&r.StaffOfPayment, &r.StaffToday)
	if err != nil {
		return fmt.Errorf("add up what the service's persons refunded: %w", err)
	}
	return nil
}

func errExceeds() *payment.Error {
	return payment.Errorf(payment.CodeRefundExceeds, "The refunds of this payment would exceed what was captured.")
}

// refunded moves the amount from what is being refunded to what was, or gives it
// back to what is left.
func (s *Service) refunded(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	p, err := u.payment(d.OrderID)
	if err != nil {
		return err
	}
	row, err := u.refund(d.RefundID)
	if err != nil {
		return err
	}
	p.refunding -= d.Amount
	row.status, row.reference = payment.RefundSucceeded, o.Reference
	event := payment.EventRefundSucceeded
	if o.Verdict == saga.Rejected {
		row.status, row.failureCode = payment.RefundFailed, o.Code
		event = payment.EventRefundFailed
	} else {
		p.refunded += d.Amount
	}
	e := d.event()
	e.Refund = &payment.RefundData{
		ID: d.RefundID, Amount: d.Amount, Reason: row.reason, Status: row.status, FailureCode: row.failureCode,
		Provider: s.Provider.Name(), Operation: o.Reference,
	}
	return u.emit(ctx, i, event, e)
}

// refundTurnedBack fails a refund that was canceled before it was sent; one that
// the provider refused has been recorded.
func (s *Service) refundTurnedBack(ctx context.Context, u *unit, i *saga.Instance, d *sagaData) error {
	row, err := u.refund(d.RefundID)
	if err != nil || row.status != payment.RefundPending {
		return err
	}
	why := i.Rejected()
	return s.refunded(ctx, u, i, d, saga.Outcome{Verdict: saga.Rejected, Code: why.Code, Detail: why.Detail})
}
