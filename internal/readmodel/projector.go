package readmodel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// Projector applies the events of an order in sequence: the next one moves the
// row and writes a line of the timeline, one that was applied before is
// dropped, and one behind a gap is a permanent error.
type Projector struct{}

func NewProjector() *Projector { return &Projector{} }

// Handle is an inbox.Handler.
func (p *Projector) Handle(ctx context.Context, tx pgx.Tx, m inbox.Message) error {
	e, err := decode(m)
	if err != nil {
		return inbox.Permanent(fmt.Errorf("read event: %w", err))
	}
	apply := advance
	if e.kind == payment.EventOrderPlaced {
		apply = place
	}
	next, err := apply(ctx, tx, e)
	if err != nil {
		return fmt.Errorf("apply %s %s at sequence %d: %w", e.kind, e.data.PaymentID, e.sequence, err)
	}
	if next {
		return nil
	}
	return refuseGap(ctx, tx, e)
}

// writeTimeline ends a statement whose first part, moved, is the payment's row
// when the event was the next. The data is kept as it came, with members that
// only a later version knows, but without the customer's address. A line that is
// there already is left: a rebuilt row walks through its old timeline.
const writeTimeline = `
	INSERT INTO payment_timeline (merchant_id, payment_id, sequence, event_id, type, data, occurred_at)
	SELECT merchant_id, payment_id, @sequence::bigint, @event_id::text, @type::text,
		@data::jsonb #- '{placed,customer,email_ciphertext}', @at::timestamptz
	FROM moved
	ON CONFLICT (merchant_id, payment_id, sequence) DO NOTHING`

func (e event) args() pgx.NamedArgs {
	return pgx.NamedArgs{
		"merchant": e.data.MerchantID, "payment": e.data.PaymentID, "order": e.data.OrderID,
		"sequence": e.sequence, "event_id": e.id, "type": string(e.kind), "data": e.raw, "at": e.at,
		"status": string(e.data.Status), "known": e.known,
	}
}

func place(ctx context.Context, tx pgx.Tx, e event) (next bool, err error) {
	placed, args := e.data.Placed, e.args()
	lines, err := json.Marshal(placed.Lines)
	if err != nil {
		return false, fmt.Errorf("encode lines: %w", err)
	}
	args["currency"], args["amount"], args["payment_method"] = placed.Currency, placed.Amount, placed.PaymentMethod
	args["customer"], args["email"] = placed.Customer.Reference, placed.Customer.EmailCiphertext
	args["reference"], args["lines"] = placed.Reference, lines
	tag, err := tx.Exec(ctx, `
		WITH moved AS (
			INSERT INTO payment_view (merchant_id, payment_id, order_id, sequence, status, currency, amount,
				payment_method, customer_reference, customer_email_ciphertext, order_reference, lines,
				created_at, updated_at)
			VALUES (@merchant, @payment, @order, @sequence, @status, @currency, @amount,
				@payment_method, @customer, @email, @reference, @lines, @at, @at)
			ON CONFLICT (merchant_id, payment_id) DO NOTHING
			RETURNING merchant_id, payment_id
		)`+writeTimeline, args)
	return tag.RowsAffected() == 1, err
}

// advance moves the row by one sequence. An event of an unknown type tells
// nothing about the row but that it happened.
func advance(ctx context.Context, tx pgx.Tx, e event) (next bool, err error) {
	args := e.args()
	args["failure"], args["captured"] = nil, nil
	if e.data.Failure != nil {
		if args["failure"], err = json.Marshal(e.data.Failure); err != nil {
			return false, fmt.Errorf("encode failure: %w", err)
		}
	}
	if e.data.Captured != nil {
		args["captured"] = e.data.Captured.Amount
	}
	tag, err := tx.Exec(ctx, `
		WITH moved AS (
			UPDATE payment_view SET
				sequence        = @sequence,
				status          = CASE WHEN @known::boolean THEN @status::text ELSE status END,
				failure         = CASE WHEN @known THEN coalesce(@failure::jsonb, failure) ELSE failure END,
				amount_captured = CASE WHEN @known THEN coalesce(@captured::bigint, amount_captured) ELSE amount_captured END,
				updated_at      = CASE WHEN @known THEN @at ELSE updated_at END
			WHERE merchant_id = @merchant AND payment_id = @payment AND order_id = @order
				AND sequence = @sequence - 1
			RETURNING merchant_id, payment_id
		)`+writeTimeline, args)
	return tag.RowsAffected() == 1, err
}

// refuseGap is nil when the row has had the event before.
func refuseGap(ctx context.Context, tx pgx.Tx, e event) error {
	var at int64
	var orderID string
	err := tx.QueryRow(ctx, `
		SELECT sequence, order_id FROM payment_view WHERE merchant_id = $1 AND payment_id = $2`,
		e.data.MerchantID, e.data.PaymentID).Scan(&at, &orderID)
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("read sequence of %s: %w", e.data.PaymentID, err)
	case err == nil && orderID != e.data.OrderID:
		return inbox.Permanent(fmt.Errorf("event %s of order %s names the payment of order %s", e.id, e.data.OrderID, orderID))
	case at < e.sequence:
		return inbox.Permanent(fmt.Errorf("gap: event %s has sequence %d and %s is at sequence %d",
			e.id, e.sequence, e.data.PaymentID, at))
	}
	return nil
}
