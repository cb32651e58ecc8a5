package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

// noticed is what the books say of a payment that the provider has told of, as far as
// it decides what is done about that. Saga members are the order's saga's.
type noticed struct {
	data                 sagaData
	status               payment.Status
	authorized, captured bool // the provider's ids are known
	sagaID               string
	state                saga.State
	refund               payment.RefundStatus // of the refund that the notification names; empty: none
}

// Notified takes the provider's word that something happened to a payment, and believes
// nothing of it. The saga that waits for the operation looks it up now instead of later.
// What the books do not explain makes the service look at the whole payment (inspect).
// A payment that is not ours is no error.
func (s *Service) Notified(ctx context.Context, tx pgx.Tx, n provider.Notification) error {
	b, err := s.noticed(ctx, tx, n)
	if errors.Is(err, errNoPayment) {
		return nil
	}
	if err != nil {
		return err
	}
	late := n.Operation == provider.Authorization && !n.Declined && !b.authorized
	if late {
		// Whether the payment has ended decides: what was read before the lock may be from
		// before a commit that was waited for.
		if _, err := readLocked(ctx, tx, b.data.MerchantID, b.data.PaymentID); err != nil {
			return err
		}
		if b, err = s.noticed(ctx, tx, n); err != nil {
			return err
		}
	}
	sagaID, step, named := requestOf(n.Key)
	if b.unexplained(n, named) {
		if err := s.inspect(ctx, tx, b.data); err != nil {
			return err
		}
	}
	live := b.state == saga.Running || b.state == saga.Compensating
	switch {
	case named && (sagaID != b.sagaID || live):
		err = saga.Nudge(ctx, tx, b.data.MerchantID, sagaID, step)
	case !named && live:
		err = saga.Nudge(ctx, tx, b.data.MerchantID, b.sagaID, "")
	}
	if err != nil {
		return err
	}
	ended := b.status == payment.StatusFailed || b.status == payment.StatusCanceled
	// An authorization that the saga knew of was voided by it.
	if late && ended && !b.authorized {
		return s.suspect(ctx, tx, b.data, b.sagaID)
	}
	return nil
}

// requestOf is the saga and the step that made the request with this key, if one of ours did.
func requestOf(key string) (sagaID, step string, named bool) {
	sagaID, step, named = saga.OfKey(key)
	return sagaID, step, named && payment.ValidID(payment.PrefixSaga, sagaID) && slices.Contains(calling, step)
}

// noticed finds the payment by our reference, or by the provider's id of its
// authorization, which disputes and refunds made at the provider name alone.
// payments_authorization_once serves the search by that id.
func (s *Service) noticed(ctx context.Context, tx pgx.Tx, n provider.Notification) (noticed, error) {
	var b noticed
	which, value := `p.id = $1`, n.Reference
	if !payment.ValidID(payment.PrefixPayment, n.Reference) {
		which, value = `p.authorization_reference = $1`, n.Authorization
	}
	if !storable(value) {
		return b, errNoPayment
	}
	refundSaga, _, _ := saga.OfKey(n.Key)
	if !payment.ValidID(payment.PrefixSaga, refundSaga) {
		refundSaga = ""
	}
	if !storable(n.OperationID) {
		n.OperationID = ""
	}
	err := tx.QueryRow(ctx, `
		SELECT p.merchant_id, p.order_id, p.id, p.amount, p.currency, p.status, p.authorization_reference IS NOT NULL, p.capture_reference IS NOT NULL,
			coalesce(s.id, ''), coalesce(s.state, 'completed'), coalesce(
				(SELECT r.status FROM refunds r WHERE r.merchant_id = p.merchant_id AND r.payment_id = p.id AND r.provider_reference = $3),
				(SELECT r.status FROM sagas f JOIN refunds r ON r.merchant_id = f.merchant_id AND r.id = f.subject
				 WHERE f.merchant_id = p.merchant_id AND f.id = $4 AND f.definition = $5), ''),
			coalesce(p.provider_account, s.data->>'provider_account', (SELECT account FROM provider_accounts WHERE inherits), '')
		FROM payments p `+sagaOfPayment+`
		WHERE `+which+` LIMIT 1`,
		value, []string{sagaAutomatic, sagaManual}, n.OperationID, refundSaga, sagaRefund).
		Scan(&b.data.MerchantID, &b.data.OrderID, &b.data.PaymentID, &b.data.Amount, &b.data.Currency, &b.status, &b.authorized, &b.captured,
			&b.sagaID, &b.state, &b.refund, &b.data.Account)
	if errors.Is(err, pgx.ErrNoRows) {
		return b, errNoPayment
	}
	if err != nil {
		return b, fmt.Errorf("read the notified payment: %w", err)
	}
	return b, nil
}

// unexplained reports whether the notification says something that the books do not
// say already, and that no saga has under way. named: its key is of one of our requests.
// The notifications of a payment that goes its usual way are all explained.
func (b noticed) unexplained(n provider.Notification, named bool) bool {
	switch n.Operation {
	case "", provider.Authorization:
		return false
	case provider.Capture:
		return !named && !n.Declined && !b.captured
	case provider.Void:
		turned := b.state == saga.Compensating || b.state == saga.Compensated
		return !named && !n.Declined && !turned
	case provider.Refund:
		switch b.refund {
		case payment.RefundPending:
			return false
		case payment.RefundSucceeded:
			return n.Declined
		case payment.RefundFailed:
			return !n.Declined
		}
		return !n.Declined
	}
	return !n.Declined // a dispute, an expiry: nothing that was ever asked for
}

// storable reports whether a provider's id can be a text in the database.
func storable(id string) bool {
	return id != "" && len(id) <= 255 && utf8.ValidString(id) && !strings.ContainsRune(id, 0)
}
