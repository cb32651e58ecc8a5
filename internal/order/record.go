package order

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/saga"
)

func (s *Service) authorized(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	d.forget()
	if o.Verdict == saga.Rejected {
		return s.declined(ctx, tx, i, d, stepAuthorize, o)
	}
	d.Authorization = o.Reference
	if _, err := tx.Exec(ctx, `
		UPDATE payments SET authorization_reference = $3, provider_account = nullif($4, ''), updated_at = now(),
			status = CASE WHEN capture_method = 'manual' THEN 'requires_capture' ELSE status END
		WHERE merchant_id = $1 AND id = $2`, d.MerchantID, d.PaymentID, o.Reference, d.Account); err != nil {
		return fmt.Errorf("record authorization: %w", err)
	}
	if d.CaptureMethod == payment.CaptureManual {
		if err := clearFailure(ctx, tx, *d); err != nil {
			return err
		}
	}
	e := d.event()
	e.Authorization = &payment.AuthorizationData{Provider: s.Provider.Name(), Operation: o.Reference, Amount: d.Amount}
	return s.emit(ctx, tx, i, payment.EventPaymentAuthorized, e)
}

func (s *Service) captured(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	if o.Verdict == saga.Rejected {
		return s.declined(ctx, tx, i, d, stepCapture, o)
	}
	d.Capture = o.Reference
	if _, err := tx.Exec(ctx, `
		UPDATE payments SET amount_captured = amount, capture_reference = $3, updated_at = now(),
			status = CASE WHEN status = 'requires_capture' THEN 'processing' ELSE status END
		WHERE merchant_id = $1 AND id = $2`, d.MerchantID, d.PaymentID, o.Reference); err != nil {
		return fmt.Errorf("record capture: %w", err)
	}
	if o.Code == codeCapturedOutside {
		if _, err := s.noteChange(ctx, tx, *d, Change{Kind: CaptureOutside, Subject: o.Reference, Amount: d.Amount, Detail: "The payment was captured at the provider."}); err != nil {
			return err
		}
	}
	e := d.event()
	e.Captured = &payment.CapturedData{Provider: s.Provider.Name(), Operation: o.Reference, Amount: d.Amount}
	return s.emit(ctx, tx, i, payment.EventPaymentCaptured, e)
}

// voided has nothing to tell when the hold was gone already, or when the refusal
// parks the saga: Parked tells of that.
func (s *Service) voided(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	if o.Verdict == saga.Rejected || o.Code == "already_voided" && i.Rejected() == nil {
		return nil
	}
	e := d.event()
	e.Authorization = &payment.AuthorizationData{Provider: s.Provider.Name(), Operation: d.Authorization, Amount: d.Amount}
	return s.emit(ctx, tx, i, payment.EventPaymentVoided, e)
}

// declined remembers why; the payment fails once everything done is undone.
func (s *Service) declined(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, step string, o saga.Outcome) error {
	return s.refuse(ctx, tx, i, d, payment.EventPaymentDeclined, payment.Failure{Code: o.Code, Step: step, Message: o.Detail})
}

func (s *Service) refuse(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, t payment.EventType, f payment.Failure) error {
	f, err := recordFailure(ctx, tx, d, f)
	if err != nil {
		return err
	}
	e := d.event()
	e.Failure = &f
	return s.emit(ctx, tx, i, t, e)
}

func recordFailure(ctx context.Context, tx pgx.Tx, d *sagaData, f payment.Failure) (payment.Failure, error) {
	if f.Message == "" {
		f.Message = "The payment was refused."
	}
	if _, err := tx.Exec(ctx, `
		UPDATE payments SET failure_code = $3, failure_step = $4, failure_message = $5, updated_at = now(),
			provider_account = coalesce(provider_account, nullif($6, ''))
		WHERE merchant_id = $1 AND id = $2`, d.MerchantID, d.PaymentID, f.Code, f.Step, f.Message, d.Account); err != nil {
		return f, fmt.Errorf("record failure: %w", err)
	}
	return f, nil
}

// clearFailure forgets why the payment was under review, once the review is over and the
// payment has not failed. Readers of the event that follows do the same (readmodel.apply).
func clearFailure(ctx context.Context, tx pgx.Tx, d sagaData) error {
	if _, err := tx.Exec(ctx, `
		UPDATE payments SET failure_code = NULL, failure_step = NULL, failure_message = NULL
		WHERE merchant_id = $1 AND id = $2 AND failure_code IS NOT NULL`, d.MerchantID, d.PaymentID); err != nil {
		return fmt.Errorf("clear failure: %w", err)
	}
	return nil
}

// confirm sells what was reserved and ends the payment.
func (s *Service) confirm(ctx context.Context, tx pgx.Tx, i *saga.Instance) (saga.Outcome, error) {
	d, err := decode(i.Data)
	if err != nil {
		return saga.Outcome{}, err
	}
	if err := settle(ctx, tx, d, "sold"); err != nil {
		return saga.Outcome{}, err
	}
	if err := s.end(ctx, tx, d, "confirmed", payment.StatusSucceeded); err != nil {
		return saga.Outcome{}, err
	}
	if err := clearFailure(ctx, tx, d); err != nil {
		return saga.Outcome{}, err
	}
	return saga.Outcome{Verdict: saga.Succeeded}, s.emit(ctx, tx, i, payment.EventOrderConfirmed, d.event())
}

// turnedBack ends an order of which nothing is left: canceled at the merchant's
// wish or by the lapse of its capture window, else failed.
func (s *Service) turnedBack(ctx context.Context, tx pgx.Tx, i *saga.Instance) error {
	d, err := decode(i.Data)
	if err != nil {
		return err
	}
	d.forget()
	if i.Data, err = d.encode(); err != nil {
		return err
	}
	why := i.Rejected()
	if why.Unproven && why.Step == stepAuthorize {
		if err := s.watch(ctx, tx, i, d); err != nil {
			return err
		}
	}
	f := payment.Failure{Code: why.Code, Step: why.Step, Message: why.Detail}
	e := d.event()
	if why.Code == codeCanceled {
		if err := s.end(ctx, tx, d, "canceled", payment.StatusCanceled); err != nil {
			return err
		}
		if err := clearFailure(ctx, tx, d); err != nil {
			return err
		}
		return s.emit(ctx, tx, i, payment.EventOrderCanceled, e)
	}
	// A refused step has recorded its failure and told of it; the engine's own reasons have not.
	if f, err = recordFailure(ctx, tx, &d, f); err != nil {
		return err
	}
	e.Failure = &f
	if (why.Code == codeLapsed || why.Code == codeVoidedByProvider) && why.Step == stepAwait {
		if err := s.end(ctx, tx, d, "canceled", payment.StatusCanceled); err != nil {
			return err
		}
		return s.emit(ctx, tx, i, payment.EventOrderCanceled, e)
	}
	if err := s.end(ctx, tx, d, "failed", payment.StatusFailed); err != nil {
		return err
	}
	return s.emit(ctx, tx, i, payment.EventOrderFailed, e)
}

// end closes the order and its payment. The order's slot in the semantic lock is
// kept by a confirmed order and freed by a failed or canceled one.
func (s *Service) end(ctx context.Context, tx pgx.Tx, d sagaData, order string, p payment.Status) error {
	if _, err := tx.Exec(ctx, `UPDATE orders SET status = $3, updated_at = now() WHERE merchant_id = $1 AND id = $2`,
		d.MerchantID, d.OrderID, order); err != nil {
		return fmt.Errorf("close order: %w", err)
	}
	return setStatus(ctx, tx, d, p)
}

func setStatus(ctx context.Context, tx pgx.Tx, d sagaData, p payment.Status) error {
	if _, err := tx.Exec(ctx, `UPDATE payments SET status = $3, updated_at = now() WHERE merchant_id = $1 AND id = $2`,
		d.MerchantID, d.PaymentID, p); err != nil {
		return fmt.Errorf("set the payment's status: %w", err)
	}
	return nil
}

// park gives the payment to a person. It stays in review until it ends.
func (s *Service) park(ctx context.Context, tx pgx.Tx, i *saga.Instance, why saga.Rejection) error {
	d, err := decode(i.Data)
	if err != nil {
		return err
	}
	if err := setStatus(ctx, tx, d, payment.StatusRequiresReview); err != nil {
		return err
	}
	if _, err := recordFailure(ctx, tx, &d, reviewed(why)); err != nil {
		return err
	}
	return s.review(ctx, tx, i, d, why)
}

func reviewed(why saga.Rejection) payment.Failure {
	f := payment.Failure{Code: why.Code, Step: why.Step, Message: why.Detail}
	if f.Message == "" {
		f.Message = "A person has to decide."
	}
	return f
}

// review tells that a person has to decide. What a refund or the voiding of a late
// authorization stands at is no failure of the payment, which has ended.
func (s *Service) review(ctx context.Context, tx pgx.Tx, i *saga.Instance, d sagaData, why saga.Rejection) error {
	e := d.event()
	f := reviewed(why)
	e.Failure = &f
	return s.emit(ctx, tx, i, payment.EventReviewRequired, e)
}
