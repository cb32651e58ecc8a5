package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

// refundedOutside is the reason of a refund that was made at the provider.
const refundedOutside = "Made at the provider"

// follow writes down each change, and moves the books to those that are safe. The
// payment is locked. A difference that was found before and is none any more is closed.
func (s *Service) follow(ctx context.Context, u *unit, b books, changes []Change) error {
	for _, c := range changes {
		if err := s.followOne(ctx, u, b, c); err != nil {
			return fmt.Errorf("%s of %s: %w", c.Kind, b.paymentID, err)
		}
	}
	return s.closeGone(ctx, u.tx, b, changes)
}

func (s *Service) followOne(ctx context.Context, u *unit, b books, c Change) error {
	switch c.Kind {
	case RefundFailedLater:
		if err := s.reverseRefund(ctx, u, b, c); err != nil {
			return err
		}
	case RefundOutside:
		if err := s.refundOutside(ctx, u, b, c); err != nil {
			return err
		}
	case Disputed:
		if err := s.recordDispute(ctx, u, b, c); err != nil {
			return err
		}
	case CaptureOutside:
		// The capture step is refused, sees why, and takes the capture for its own.
		if err := accepted(saga.Signal(ctx, u.tx, b.merchantID, sagaManual, b.orderID)); err != nil {
			return err
		}
		return nil // what the capture step records is what was found
	case VoidOutside, Expired:
		why := saga.Rejection{Code: codeLapsed, Detail: "The authorization has expired."}
		if c.Kind == VoidOutside {
			why = saga.Rejection{Code: codeVoidedByProvider, Detail: "The authorization was voided at the provider."}
		}
		if err := accepted(saga.Abort(ctx, u.tx, b.merchantID, sagaManual, b.orderID, why)); err != nil {
			return err
		}
	case CaptureUnfit, CaptureMissing, RefundMissing, HeldAfterEnd, AuthorizedTwice, OtherAmount, RefundsOverBounds, NotOurs, UnknownThere:
	}
	fresh, err := s.noteChange(ctx, u.tx, b.data(), c)
	if err != nil || !fresh || c.Safe() {
		return err
	}
	d := b.data()
	return reviewed(ctx, u, nil, &d, saga.Rejection{Step: stepInspect, Code: string(c.Kind), Detail: c.Detail})
}

// accepted passes over a saga that has moved on: the next look sees where to.
func accepted(err error) error {
	if refused(err) || errors.Is(err, saga.ErrNotAwaiting) || errors.Is(err, saga.ErrNoSaga) {
		return nil
	}
	return err
}

// noteChange keeps what was found, once for its kind and subject. It is fresh if nobody
// had found it, or if it had gone and has come again.
func (s *Service) noteChange(ctx context.Context, tx pgx.Tx, d sagaData, c Change) (fresh bool, err error) {
	state := "recorded"
	if c.Open() {
		state = "open"
	}
	// News of a dispute opens what was accepted before; a dispute that is won needs nobody.
	tag, err := tx.Exec(ctx, `
		INSERT INTO provider_changes AS p (merchant_id, id, payment_id, kind, subject, amount, detail, state)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (merchant_id, payment_id, kind, subject) DO UPDATE SET
			detail = excluded.detail, amount = excluded.amount, state = excluded.state, found_at = excluded.found_at,
			decided_at = NULL, operator = NULL, holder = NULL, reason = NULL
		WHERE p.state = 'gone' OR p.detail <> excluded.detail`,
		d.MerchantID, s.IDs.New(payment.PrefixChange), d.PaymentID, c.Kind, c.Subject, c.Amount, c.Detail, state)
	if err != nil {
		return false, fmt.Errorf("keep what was found: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}

// closeGone closes what waits for an operator and is no longer so at the provider. What
// has entered the books is no difference any more, and waits on.
func (s *Service) closeGone(ctx context.Context, tx pgx.Tx, b books, changes []Change) error {
	kinds, subjects := []string{}, []string{}
	for _, c := range changes {
		kinds, subjects = append(kinds, string(c.Kind)), append(subjects, c.Subject)
	}
	if _, err := tx.Exec(ctx, `
		UPDATE provider_changes p SET state = 'gone', decided_at = clock_timestamp()
		WHERE merchant_id = $1 AND payment_id = $2 AND state = 'open' AND kind = ANY ($5)
			AND NOT EXISTS (SELECT FROM unnest($3::text[], $4::text[]) AS f (kind, subject) WHERE f.kind = p.kind AND f.subject = p.subject)`,
		b.merchantID, b.paymentID, kinds, subjects, unsafeKinds); err != nil {
		return fmt.Errorf("close what is gone: %w", err)
	}
	return nil
}

var unsafeKinds = []string{ //nolint:gochecknoglobals // a constant, were slices constants
	string(CaptureUnfit), string(CaptureMissing), string(RefundMissing), string(HeldAfterEnd), string(AuthorizedTwice), string(OtherAmount), string(RefundsOverBounds),
}

// reverseRefund takes back a refund that had succeeded: its amount can be refunded again.
func (s *Service) reverseRefund(ctx context.Context, u *unit, b books, c Change) error {
	r := payment.RefundData{
		ID: c.refund.id, Amount: c.refund.amount, Reason: c.refund.reason, Status: payment.RefundFailed, FailureCode: c.code,
		Provider: s.Provider.Name(), Operation: c.Subject, Reversed: true,
	}
	if r.FailureCode == "" {
		r.FailureCode = "refund_failed"
	}
	d := b.data()
	p, err := u.payment(d.OrderID)
	if err != nil {
		return err
	}
	row, err := u.refund(r.ID)
	if err != nil {
		return err
	}
	row.status, row.failureCode, row.reference, row.changed = r.Status, r.FailureCode, c.Subject, true
	p.refunded -= r.Amount
	e := d.event()
	e.Refund = &r
	return u.emit(ctx, nil, payment.EventRefundFailed, e)
}

// refundOutside enters a refund that was made at the provider.
func (s *Service) refundOutside(ctx context.Context, u *unit, b books, c Change) error {
	r := payment.RefundData{
		ID: s.IDs.New(payment.PrefixRefund), Amount: c.Amount, Reason: refundedOutside, Status: payment.RefundSucceeded,
		Provider: s.Provider.Name(), Operation: c.Subject,
	}
	d := b.data()
	p, err := u.payment(d.OrderID)
	if err != nil {
		return err
	}
	p.refunded += c.Amount
	u.refunds[r.ID] = &refundRow{
		id: r.ID, paymentID: b.paymentID, amount: c.Amount, reason: r.Reason, status: r.Status, reference: c.Subject, isNew: true,
	}
	e := d.event()
	e.Refund = &r
	return u.emit(ctx, nil, payment.EventRefundSucceeded, e)
}

// recordDispute enters a new dispute, or news of one.
func (s *Service) recordDispute(ctx context.Context, u *unit, b books, c Change) error {
	d := payment.DisputeData{
		Status: payment.DisputeStatus(c.dispute.Status), Amount: c.dispute.Amount, Currency: c.dispute.Currency, Reason: c.dispute.Reason,
		OpenedAt: c.dispute.Created.UTC().Truncate(time.Second), Provider: s.Provider.Name(), Operation: c.dispute.ID,
	}
	if !c.dispute.RespondBy.IsZero() && c.dispute.Status == provider.DisputeOpen {
		by := c.dispute.RespondBy.UTC().Truncate(time.Second)
		d.RespondBy = &by
	}
	kind := payment.EventDisputeOpened
	if c.known != nil {
		d.ID, kind = c.known.id, payment.EventDisputeUpdated
	} else {
		d.ID = s.IDs.New(payment.PrefixDispute)
	}
	if d.Status != payment.DisputeOpen {
		kind = payment.EventDisputeClosed
	}
	if _, err := u.tx.Exec(ctx, `
		INSERT INTO disputes (merchant_id, id, payment_id, provider_reference, status, amount, currency, reason, respond_by, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (merchant_id, payment_id, provider_reference) DO UPDATE SET status = excluded.status, amount = excluded.amount,
			reason = excluded.reason, respond_by = excluded.respond_by, updated_at = clock_timestamp()`,
		b.merchantID, d.ID, b.paymentID, c.dispute.ID, d.Status, d.Amount, d.Currency, d.Reason, d.RespondBy, d.OpenedAt); err != nil {
		return fmt.Errorf("keep dispute: %w", err)
	}
	e := b.data().event()
	e.Dispute = &d
	return u.emit(ctx, nil, kind, e)
}
