package order

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/saga"
)

// lockedPayment is what decides whether a merchant may change a payment: both were read while
// the saga of the payment's order was locked.
type lockedPayment struct {
	payment Payment
	saga    saga.Locked // zero where there is no saga any more
}

// orderOf gives what a payment never changes: its order, and how it is captured.
func orderOf(ctx context.Context, tx pgx.Tx, merchantID, paymentID string) (orderID string, capture payment.CaptureMethod, err error) {
	err = tx.QueryRow(ctx, `SELECT order_id, capture_method FROM payments WHERE merchant_id = $1 AND id = $2`, merchantID, paymentID).
		Scan(&orderID, &capture)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", errNoPayment
	}
	if err != nil {
		return "", "", fmt.Errorf("read payment: %w", err)
	}
	return orderID, capture, nil
}

// readLocked locks first and reads then. A status that is read before the wait for the lock may
// be from before the commit that was waited for.
func readLocked(ctx context.Context, tx pgx.Tx, merchantID, paymentID string) (s lockedPayment, err error) {
	orderID, capture, err := orderOf(ctx, tx, merchantID, paymentID)
	if err != nil {
		return s, err
	}
	if s.saga, err = saga.Lock(ctx, tx, merchantID, sagaOf(capture), orderID); err != nil && !errors.Is(err, saga.ErrNoSaga) {
		return s, err
	}
	s.payment, err = readPayment(ctx, tx, merchantID, paymentID)
	return s, err
}

// changeLocked lets do decide while the payment is locked, and returns the payment as it is then.
// The saga, not this call, changes the payment and appends its events.
func (s *Service) changeLocked(ctx context.Context, merchantID, paymentID string, do func(pgx.Tx, lockedPayment) error) (p Payment, err error) {
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		locked, err := readLocked(ctx, tx, merchantID, paymentID)
		if err != nil {
			return err
		}
		p = locked.payment
		return do(tx, locked)
	})
	if err != nil {
		return Payment{}, err
	}
	s.Due()
	return p, nil
}

// Cancel asks for the order to turn back. It is heeded before the capture is sent to the
// provider; asked again, or of a canceled payment, it does nothing. Errors: CodeNotFound,
// CodeActionNotAllowed.
func (s *Service) Cancel(ctx context.Context, merchantID, paymentID string) (Payment, error) {
	return s.changeLocked(ctx, merchantID, paymentID, func(tx pgx.Tx, at lockedPayment) error {
		p := at.payment
		if p.Status == payment.StatusCanceled {
			return nil
		}
		err := saga.Abort(ctx, tx, merchantID, sagaOf(p.CaptureMethod), p.OrderID, canceled())
		if refused(err) {
			return at.refuse("This payment can no longer be canceled.").Because(err)
		}
		return err
	})
}

func canceled() saga.Rejection {
	return saga.Rejection{Code: codeCanceled, Detail: "The payment was canceled."}
}

// Capture lets a manual payment that is authorized go on. Asked again, it does nothing.
// Errors: CodeNotFound, CodeActionNotAllowed.
func (s *Service) Capture(ctx context.Context, merchantID, paymentID string) (Payment, error) {
	return s.changeLocked(ctx, merchantID, paymentID, func(tx pgx.Tx, at lockedPayment) error {
		p := at.payment
		switch {
		case at.capturedBefore():
			return nil
		case p.Status != payment.StatusRequiresCapture:
			return at.refuse("This payment does not wait for its capture.")
		case at.saga.Aborted:
			return at.refuse("This payment is being canceled.", "cancel")
		}
		err := saga.Signal(ctx, tx, merchantID, sagaManual, p.OrderID)
		if refused(err) {
			return at.refuse("This payment can no longer be captured.").Because(err)
		}
		return err
	})
}

// capturedBefore reports whether a manual payment is captured, or is being captured since
// its merchant asked for it.
func (s lockedPayment) capturedBefore() bool {
	if s.payment.CaptureMethod != payment.CaptureManual {
		return false
	}
	if s.payment.Status == payment.StatusSucceeded {
		return true
	}
	return s.saga.State == saga.Running && (s.saga.Step == stepCapture && !s.saga.Aborted || s.saga.Step == stepConfirm)
}

func refused(err error) bool {
	return errors.Is(err, saga.ErrPastPivot) || errors.Is(err, saga.ErrTurnedBack) || errors.Is(err, saga.ErrParked) ||
		errors.Is(err, saga.ErrNotAwaiting) || errors.Is(err, saga.ErrNoSaga)
}

// refuse names the actions that would be accepted now, without the one that is under way.
func (s lockedPayment) refuse(message string, underWay ...string) *payment.Error {
	e := payment.Errorf(payment.CodeActionNotAllowed, "%s", message)
	e.Allowed = []string{}
	running := s.saga.State == saga.Running
	accepts := map[string]bool{
		"cancel": running && s.saga.Abortable, "capture": running && s.saga.Awaiting && !s.saga.Aborted, "refund": true,
	}
	for _, action := range s.payment.Status.Actions() {
		if accepts[action] && !slices.Contains(underWay, action) {
			e.Allowed = append(e.Allowed, action)
		}
	}
	return e
}
