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
	if merchantID == "" {
		rows, err := postgres.Query(ctx, s.Pool, selectPayment+`p.id = $1`, id)
		return onePayment(rows, err)
	}
	rows, err := postgres.Query(ctx, s.Pool, selectMerchants, merchantID, id)
	return onePayment(rows, err)
}

func readPayment(ctx context.Context, tx pgx.Tx, merchantID, id string) (Payment, error) {
	rows, err := tx.Query(ctx, selectMerchants, merchantID, id)
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
	WHERE `

// selectMerchants names the whole key, so that one plan is good for every merchant.
const selectMerchants = selectPayment + `p.merchant_id = $1 AND p.id = $2`

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

// lookEvery is the pause between two looks at what is waited for and was not changed by this
// process, which wakes whoever waits (Changed).
const lookEvery = 25 * time.Millisecond

type paymentKey struct{ merchantID, id string }

// statuses reads those of the payments, "" of those that there are not.
func (s *Service) statuses(ctx context.Context, of []paymentKey) (map[paymentKey]payment.Status, error) {
	merchants, ids := make([]string, len(of)), make([]string, len(of))
	read := make(map[paymentKey]payment.Status, len(of))
	for i, k := range of {
		merchants[i], ids[i], read[k] = k.merchantID, k.id, ""
	}
	rows, err := s.Engine.Query(ctx, `
		SELECT p.merchant_id, p.id, p.status FROM unnest($1::text[], $2::text[]) AS k (merchant_id, id), LATERAL (
			SELECT merchant_id, id, status FROM payments WHERE merchant_id = k.merchant_id AND id = k.id OFFSET 0) p`, merchants, ids)
	if err != nil {
		return nil, fmt.Errorf("read the payments that are waited for: %w", err)
	}
	var k paymentKey
	var status payment.Status
	if _, err := pgx.ForEachRow(rows, []any{&k.merchantID, &k.id, &status}, func() error {
		read[k] = status
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the payments that are waited for: %w", err)
	}
	return read, nil
}

// Changed hints that a commit of this process has changed payments. Whoever waits for one looks.
func (s *Service) Changed() { s.outcomes.Wake() }

// WaitFor waits until done says so of the payment's status, or the wait is over, and reads the
// payment; without any wait it reads at once. ok is whether the payment that it answers is done. It
// answers none after a context that ended. Error: CodeNotFound.
func (s *Service) WaitFor(ctx context.Context, merchantID, id string, wait time.Duration, done func(payment.Status) bool) (p Payment, ok bool, err error) {
	if wait > 0 {
		waiting, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		_, err := s.outcomes.Wait(waiting, paymentKey{merchantID, id}, func(read payment.Status) bool { return read == "" || done(read) })
		switch {
		case ctx.Err() != nil:
			return p, false, nil
		case err != nil && waiting.Err() == nil:
			return p, false, err
		}
	}
	if p, err = s.Payment(ctx, merchantID, id); err != nil {
		return p, false, err
	}
	return p, done(p.Status), nil
}
