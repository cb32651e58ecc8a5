package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// Payment is a payment as the write model has it after its order's event with the
// Sequence. The read model's row of that event has the same members with the same values;
// a conversion in internal/api keeps the two types alike. Amounts are in minor units; times
// are UTC.
type Payment struct {
	MerchantID              string
	ID                      string
	OrderID                 string
	Sequence                int64
	Status                  payment.Status
	Amount                  int64
	AmountCaptured          int64
	AmountRefunded          int64
	Currency                string
	PaymentMethod           string // its fingerprint; the token itself where it has no ciphertext, of a row from before
	PaymentMethodCiphertext []byte
	CaptureMethod           payment.CaptureMethod
	CustomerReference       string
	CustomerEmailCiphertext []byte // nil when the client gave no address
	OrderReference          string
	Lines                   []payment.LineData
	Failure                 *payment.Failure
	Dispute                 *payment.Dispute
	CreatedAt               time.Time
	UpdatedAt               time.Time
}

var errNoPayment = payment.Errorf(payment.CodeNotFound, "There is no such payment.")

// Payment reads one payment of a merchant, or of any when merchantID is empty. It is for the
// answers of commands, which may not wait for the read model. Error: CodeNotFound.
func (s *Service) Payment(ctx context.Context, merchantID, id string) (Payment, error) {
	if !payment.ValidID(payment.PrefixPayment, id) {
		return Payment{}, errNoPayment
	}
	rows, err := postgres.Query(ctx, s.Pool, selectPayment, merchantID, id)
	return onePayment(rows, err)
}

func readPayment(ctx context.Context, tx pgx.Tx, merchantID, id string) (Payment, error) {
	rows, err := tx.Query(ctx, selectPayment, merchantID, id)
	return onePayment(rows, err)
}

// selectPayment is one statement, so that it shows one moment. An order's updated_at is the
// time of its newest event, but for the first, which has the time at which it was made.
const selectPayment = `
	SELECT p.merchant_id, p.id, p.order_id, o.sequence, p.status, p.amount, p.amount_captured, p.amount_refunded, p.currency,
		p.payment_method, p.payment_method_ciphertext, p.capture_method, o.customer_reference, o.customer_email_ciphertext, o.reference,
		(SELECT json_agg(json_build_object('sku', l.sku, 'quantity', l.quantity, 'unit_amount', l.unit_amount) ORDER BY l.line)
			FROM order_lines l WHERE l.merchant_id = p.merchant_id AND l.order_id = p.order_id),
		CASE WHEN p.failure_code IS NOT NULL
			THEN json_build_object('code', p.failure_code, 'step', p.failure_step, 'message', p.failure_message) END,
		(SELECT json_build_object('id', d.id, 'status', d.status, 'amount', d.amount, 'currency', d.currency, 'reason', d.reason,
				'respond_by', d.respond_by, 'opened_at', d.created_at)
			FROM disputes d WHERE d.merchant_id = p.merchant_id AND d.payment_id = p.id ORDER BY d.updated_at DESC, d.id DESC LIMIT 1),
		p.created_at, CASE o.sequence WHEN 1 THEN p.created_at ELSE o.updated_at END
	FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id
	WHERE p.id = $2 AND ($1 = '' OR p.merchant_id = $1)`

func onePayment(rows pgx.Rows, err error) (Payment, error) {
	if err != nil {
		return Payment{}, fmt.Errorf("read payment: %w", err)
	}
	p, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (p Payment, err error) {
		err = row.Scan(&p.MerchantID, &p.ID, &p.OrderID, &p.Sequence, &p.Status, &p.Amount, &p.AmountCaptured, &p.AmountRefunded, &p.Currency,
			&p.PaymentMethod, &p.PaymentMethodCiphertext, &p.CaptureMethod, &p.CustomerReference, &p.CustomerEmailCiphertext, &p.OrderReference,
			&p.Lines, &p.Failure, &p.Dispute, &p.CreatedAt, &p.UpdatedAt)
		p.CreatedAt, p.UpdatedAt = p.CreatedAt.UTC(), p.UpdatedAt.UTC()
		return p, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Payment{}, errNoPayment
	}
	if err != nil {
		return Payment{}, fmt.Errorf("read payment: %w", err)
	}
	return p, nil
}

const (
	// The pauses between two looks at a payment that is waited for.
	firstLook, lastLook = 10 * time.Millisecond, 250 * time.Millisecond
)

// WaitFor reads the payment until done says so of its status, or the wait is over; without
// any wait it looks once. It answers the last that it read, and whether that is done. Of a
// context that ends it answers what it has read by then. Error: CodeNotFound.
func (s *Service) WaitFor(ctx context.Context, merchantID, id string, wait time.Duration, done func(payment.Status) bool) (p Payment, ok bool, err error) {
	over, pause := time.NewTimer(wait), time.NewTimer(0)
	defer over.Stop()
	defer pause.Stop()
	<-pause.C
	for length := firstLook; ; length = min(length*3/2, lastLook) {
		read, err := s.Payment(ctx, merchantID, id)
		if err != nil {
			if ctx.Err() != nil && p.ID != "" {
				return p, false, nil
			}
			return p, false, err
		}
		if p = read; done(p.Status) {
			return p, true, nil
		}
		if wait <= 0 {
			return p, false, nil
		}
		pause.Reset(length)
		select {
		case <-ctx.Done():
			return p, false, nil
		case <-over.C:
			return p, false, nil
		case <-pause.C:
		}
	}
}
