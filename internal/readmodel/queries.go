package readmodel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/await"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// Payment is the row of the read model after the event with its Sequence.
// Amounts are in minor units; times are UTC.
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

// Queries reads within a scope: what belongs to another merchant is not there.
type Queries struct {
	pool      *pgxpool.Pool
	positions *await.Group[rowID, int64]
}

// NewQueries reads from this pool.
func NewQueries(pool *pgxpool.Pool) *Queries {
	q := &Queries{pool: pool}
	q.positions = await.New(lookEvery, q.sequences)
	return q
}

const selectPayment = `
	SELECT v.merchant_id, v.payment_id, v.order_id, v.sequence, v.status, v.amount, v.amount_captured, v.amount_refunded, v.currency,
		v.payment_method, v.payment_method_ciphertext, v.capture_method, v.customer_reference, v.customer_email_ciphertext, v.order_reference,
		v.lines, v.failure, v.dispute, v.created_at, v.updated_at
	FROM payment_view v `

func scanPayment(row pgx.CollectableRow) (p Payment, err error) {
	err = row.Scan(&p.MerchantID, &p.ID, &p.OrderID, &p.Sequence, &p.Status, &p.Amount, &p.AmountCaptured,
		&p.AmountRefunded, &p.Currency, &p.PaymentMethod, &p.PaymentMethodCiphertext, &p.CaptureMethod, &p.CustomerReference, &p.CustomerEmailCiphertext,
		&p.OrderReference, &p.Lines, &p.Failure, &p.Dispute, &p.CreatedAt, &p.UpdatedAt)
	p.CreatedAt, p.UpdatedAt = p.CreatedAt.UTC(), p.UpdatedAt.UTC()
	return p, err
}

// read is false when the scope has no such payment, or it is not projected yet.
func (q *Queries) read(ctx context.Context, scope access.Scope, id string) (Payment, bool, error) {
	if !payment.ValidID(payment.PrefixPayment, id) {
		return Payment{}, false, nil
	}
	var s statement
	where := "WHERE v.payment_id = " + s.arg(id)
	if merchant, all := s.merchant(scope, Filter{}); !all {
		where += " AND " + merchant
	}
	rows, err := postgres.Query(ctx, q.pool, selectPayment+where, s.args...)
	if err != nil {
		return Payment{}, false, fmt.Errorf("read payment: %w", err)
	}
	p, err := pgx.CollectOneRow(rows, scanPayment)
	if errors.Is(err, pgx.ErrNoRows) {
		return Payment{}, false, nil
	}
	if err != nil {
		return Payment{}, false, fmt.Errorf("read payment: %w", err)
	}
	return p, true, nil
}

// Entry is one event of a payment's life, with the attempts that led to it.
type Entry struct {
	PaymentID  string
	Sequence   int64
	Type       payment.EventType
	EventID    string
	OccurredAt time.Time
	Status     payment.Status
	Failure    *payment.Failure
	Attempts   []payment.AttemptData
}

const entryColumns = `t.payment_id, t.sequence, t.type, t.event_id, t.occurred_at, t.data`

// Timeline is a part of the payment's events, in their order: at most limit of those after the
// sequence, which is 0 at first.
func (q *Queries) Timeline(ctx context.Context, scope access.Scope, id string, after int64, limit int) ([]Entry, error) {
	p, err := q.Get(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	rows, err := postgres.Query(ctx, q.pool, `
		SELECT `+entryColumns+` FROM payment_timeline t 
		WHERE t.merchant_id = $1 AND t.payment_id = $2 AND t.sequence > $3 ORDER BY t.sequence LIMIT $4`, p.MerchantID, p.ID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read timeline: %w", err)
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	if err != nil {
		return nil, fmt.Errorf("read timeline: %w", err)
	}
	return entries, nil
}

func scanEntry(row pgx.CollectableRow) (e Entry, err error) {
	var data payment.EventData
	err = row.Scan(&e.PaymentID, &e.Sequence, &e.Type, &e.EventID, &e.OccurredAt, &data)
	e.OccurredAt, e.Status, e.Failure, e.Attempts = e.OccurredAt.UTC(), data.Status, data.Failure, data.Attempts
	return e, err
}
