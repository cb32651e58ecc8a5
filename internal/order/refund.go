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
}

// Refund writes the key, the refund, its saga and its event, and takes its amount
// out of what is left to refund, in one transaction; or gives the stored response
// of the request that did so before. Errors: those of Place for the key;
// CodeNotFound, CodeActionNotAllowed, CodeRefundExceeds.
func (s *Service) Refund(ctx context.Context, r idempotency.Request, paymentID string, wanted payment.Refund,
	render func(Refunding) (idempotency.Response, error),
) (resp idempotency.Response, replayed bool, err error) {
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) (err error) {
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
	at, err := stand(ctx, tx, merchantID, paymentID)
	if err != nil {
		return Refunding{}, err
	}
	p := at.payment
	if p.Status != payment.StatusSucceeded {
		return Refunding{}, at.refuse("Only a succeeded payment can be refunded.")
	}
	if err := lockOrders(ctx, tx, merchantID, []string{p.OrderID}); err != nil {
		return Refunding{}, err
	}
	asked := Refunding{ID: s.IDs.New(payment.PrefixRefund), PaymentID: paymentID, Reason: wanted.Reason()}
	d := sagaData{MerchantID: merchantID, OrderID: p.OrderID, PaymentID: paymentID, RefundID: asked.ID, Currency: p.Currency}
	var left int64
	// Read by a statement of its own, after the lock: what other refunds took is seen.
	err = tx.QueryRow(ctx, `
		SELECT amount_captured - amount_refunded - amount_refunding, coalesce(capture_reference, ''), coalesce(provider_account, '')
		FROM payments WHERE merchant_id = $1 AND id = $2`, merchantID, paymentID).Scan(&left, &d.Capture, &d.Account)
	if err != nil {
		return Refunding{}, fmt.Errorf("read payment: %w", err)
	}
	asked.Amount, asked.Currency = wanted.Amount(left), d.Currency
	if asked.Amount < 1 || asked.Amount > left {
		return Refunding{}, errExceeds()
	}
	d.Amount = asked.Amount
	_, err = tx.Exec(ctx, `UPDATE payments SET amount_refunding = amount_refunding + $3, updated_at = now() WHERE merchant_id = $1 AND id = $2`,
		merchantID, paymentID, asked.Amount)
	if postgres.Constraint(err) == "payments_refunds_bounded" {
		return Refunding{}, errExceeds().Because(err)
	}
	if err != nil {
		return Refunding{}, fmt.Errorf("take the refund out of what is left: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO refunds (merchant_id, id, payment_id, amount, reason, status, created_at) VALUES ($1, $2, $3, $4, nullif($5, ''), 'pending', now())`,
		merchantID, asked.ID, paymentID, asked.Amount, asked.Reason); err != nil {
		return Refunding{}, fmt.Errorf("insert refund: %w", err)
	}
	raw, err := d.encode()
	if err != nil {
		return Refunding{}, err
	}
	if err := s.refund().Begin(ctx, tx, saga.Begin{
		MerchantID: merchantID, ID: s.IDs.New(payment.PrefixSaga), Subject: asked.ID, Trace: traceparent(ctx), Data: raw,
	}); err != nil {
		return Refunding{}, err
	}
	e := d.event()
	e.Refund = &payment.RefundData{ID: asked.ID, Amount: asked.Amount, Reason: asked.Reason, Status: payment.RefundPending}
	requested, err := s.tell(ctx, tx, nil, payment.EventRefundRequested, e)
	asked.Sequence, asked.CreatedAt = requested.sequence, requested.at
	return asked, err
}

func errExceeds() *payment.Error {
	return payment.Errorf(payment.CodeRefundExceeds, "The refunds of this payment would exceed what was captured.")
}

// refunded moves the amount from what is being refunded to what was, or gives it
// back to what is left.
func (s *Service) refunded(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	r := payment.RefundData{ID: d.RefundID, Amount: d.Amount, Status: payment.RefundSucceeded, Provider: s.Provider.Name(), Operation: o.Reference}
	event, given := payment.EventRefundSucceeded, d.Amount
	if o.Verdict == saga.Rejected {
		event, given = payment.EventRefundFailed, 0
		r.Status, r.FailureCode = payment.RefundFailed, o.Code
	}
	if _, err := tx.Exec(ctx, `
		UPDATE payments SET amount_refunding = amount_refunding - $3, amount_refunded = amount_refunded + $4, updated_at = now()
		WHERE merchant_id = $1 AND id = $2`, d.MerchantID, d.PaymentID, d.Amount, given); err != nil {
		return fmt.Errorf("settle refund: %w", err)
	}
	var reason *string
	err := tx.QueryRow(ctx, `
		UPDATE refunds SET status = $3, failure_code = nullif($4, ''), provider_reference = nullif($5, ''), updated_at = now()
		WHERE merchant_id = $1 AND id = $2 RETURNING reason`, d.MerchantID, d.RefundID, r.Status, r.FailureCode, o.Reference).Scan(&reason)
	if err != nil {
		return fmt.Errorf("settle refund: %w", err)
	}
	if reason != nil {
		r.Reason = *reason
	}
	e := d.event()
	e.Refund = &r
	return s.emit(ctx, tx, i, event, e)
}

// refundTurnedBack fails a refund that was canceled before it was sent; one that
// the provider refused has been recorded.
func (s *Service) refundTurnedBack(ctx context.Context, tx pgx.Tx, i *saga.Instance) error {
	var pending bool
	if err := tx.QueryRow(ctx, `SELECT status = 'pending' FROM refunds WHERE merchant_id = $1 AND id = $2`, i.MerchantID, i.Subject).
		Scan(&pending); err != nil {
		return fmt.Errorf("read refund: %w", err)
	}
	if !pending {
		return nil
	}
	why := i.Rejected()
	return recording(s.refunded)(ctx, tx, i, saga.Outcome{Verdict: saga.Rejected, Code: why.Code, Detail: why.Detail})
}

// parkRefund leaves the payment succeeded, as it is; the refund stays pending.
func (s *Service) parkRefund(ctx context.Context, tx pgx.Tx, i *saga.Instance, why saga.Rejection) error {
	d, err := decode(i.Data)
	if err != nil {
		return err
	}
	return s.review(ctx, tx, i, d, why)
}
