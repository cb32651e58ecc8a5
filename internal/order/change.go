package order

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/saga"
)

// standing is what decides whether a merchant may change a payment.
type standing struct {
	orderID string
	status  payment.Status
	capture payment.CaptureMethod
	// Of the order's newest event, which the decision rests on.
	sequence int64
}

func stand(ctx context.Context, tx pgx.Tx, merchantID, paymentID string) (s standing, err error) {
	err = tx.QueryRow(ctx, `
		SELECT p.order_id, p.status, p.capture_method, o.sequence
		FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id
		WHERE p.merchant_id = $1 AND p.id = $2`,
		merchantID, paymentID).Scan(&s.orderID, &s.status, &s.capture, &s.sequence)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, errNoPayment
	}
	if err != nil {
		return s, fmt.Errorf("read payment: %w", err)
	}
	return s, nil
}

var errNoPayment = payment.Errorf(payment.CodeNotFound, "There is no such payment.")

// Cancel asks for the order to turn back. It is heeded before the capture is sent
// to the provider; asked again, or of a canceled payment, it does nothing. The
// sequence is that of the order's newest event by then: the saga, not this call,
// tells of the cancellation. Errors: CodeNotFound, CodeActionNotAllowed.
func (s *Service) Cancel(ctx context.Context, merchantID, paymentID string) (sequence int64, err error) {
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		p, err := stand(ctx, tx, merchantID, paymentID)
		sequence = p.sequence
		if err != nil || p.status == payment.StatusCanceled {
			return err
		}
		err = saga.Abort(ctx, tx, merchantID, sagaOf(p.capture), p.orderID, canceled())
		if refused(err) {
			return notAllowed(p.status, "This payment can no longer be canceled.", "cancel", "capture").Because(err)
		}
		return err
	})
	if err == nil {
		s.Due()
	}
	return sequence, err
}

func canceled() saga.Rejection {
	return saga.Rejection{Code: codeCanceled, Detail: "The payment was canceled."}
}

// Capture lets a manual payment that is authorized go on. Asked again, it does
// nothing. The sequence is as of Cancel. Errors: CodeNotFound, CodeActionNotAllowed.
func (s *Service) Capture(ctx context.Context, merchantID, paymentID string) (sequence int64, err error) {
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		p, err := stand(ctx, tx, merchantID, paymentID)
		sequence = p.sequence
		if err != nil || p.capture == payment.CaptureManual && p.status == payment.StatusSucceeded {
			return err
		}
		if p.status != payment.StatusRequiresCapture {
			return notAllowed(p.status, "This payment does not wait for its capture.")
		}
		err = saga.Signal(ctx, tx, merchantID, sagaManual, p.orderID)
		if errors.Is(err, saga.ErrNotAwaiting) {
			return captureAskedBefore(ctx, tx, merchantID, p)
		}
		if refused(err) {
			return notAllowed(p.status, "This payment can no longer be captured.", "cancel", "capture").Because(err)
		}
		return err
	})
	if err == nil {
		s.Due()
	}
	return sequence, err
}

// captureAskedBefore tells a capture that is under way from a cancellation.
func captureAskedBefore(ctx context.Context, tx pgx.Tx, merchantID string, p standing) error {
	var capturing bool
	if err := tx.QueryRow(ctx, `
		SELECT step = $4 AND abort IS NULL FROM sagas WHERE merchant_id = $1 AND definition = $2 AND subject = $3`,
		merchantID, sagaManual, p.orderID, stepCapture).Scan(&capturing); err != nil {
		return fmt.Errorf("read saga: %w", err)
	}
	if capturing {
		return nil
	}
	return notAllowed(p.status, "This payment is being canceled.", "cancel", "capture")
}

func refused(err error) bool {
	return errors.Is(err, saga.ErrPastPivot) || errors.Is(err, saga.ErrTurnedBack) || errors.Is(err, saga.ErrParked)
}

// notAllowed names what the status allows, less what has just been found not to be.
func notAllowed(status payment.Status, message string, less ...string) *payment.Error {
	e := payment.Errorf(payment.CodeActionNotAllowed, "%s", message)
	e.Allowed = []string{}
	for _, action := range status.Actions() {
		allowed := true
		for _, l := range less {
			allowed = allowed && action != l
		}
		if allowed {
			e.Allowed = append(e.Allowed, action)
		}
	}
	return e
}
