package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/idempotency"
	"payments/internal/outbox"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/saga"
	"payments/internal/secret"
)

// Config of a Service; every member but Placed is needed.
type Config struct {
	Pool     *pgxpool.Pool
	IDs      payment.Generator
	Cipher   *secret.Cipher
	Methods  *secret.Tokens // of payment methods, each sealed for its payment's id
	Provider provider.Provider
	// Due is called after each commit that made a saga due, as a hint.
	Due func()
	// Deadline of an order that has not come to its pivot; CaptureWindow is how long a
	// manual capture may be waited for; Horizon is that of the saga's policy.
	Deadline, CaptureWindow, Horizon time.Duration
}

// Service places orders and moves them. Its zero value is of no use.
type Service struct {
	Config
	accounts *accounts
}

// New makes a service.
func New(c Config) *Service {
	if c.Due == nil {
		c.Due = func() {}
	}
	return &Service{Config: c, accounts: &accounts{}}
}

// Placed is a new order and its payment.
type Placed struct {
	PaymentID, OrderID, MerchantID string
	Order                          payment.Order
	CreatedAt                      time.Time // by the database's clock, as every event
}

// PaymentMethods keeps the tokens that payments are charged with, each sealed for its
// payment's id.
func PaymentMethods(p *secret.Pepper, c *secret.Cipher) *secret.Tokens {
	return secret.NewTokens("payment_method", "pm_fp_", p, c)
}

// EmailData is the associated data that binds a customer's address to the
// payment it was given for.
func EmailData(paymentID string) []byte { return []byte("customer_email|" + paymentID) }

// Place writes the key, the order, the payment, the saga, the first event and the
// response that render makes, in one transaction; or gives the stored response
// of the request that did so before. Errors: idempotency.ErrInUse and ErrReused;
// *payment.Error order_in_progress or order_already_paid.
func (s *Service) Place(ctx context.Context, r idempotency.Request, o payment.Order,
	render func(Placed) (idempotency.Response, error),
) (resp idempotency.Response, replayed bool, err error) {
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) (err error) {
		resp, replayed, err = idempotency.Once(ctx, tx, r, func() (Placed, error) {
			p := Placed{
				PaymentID: s.IDs.New(payment.PrefixPayment), OrderID: s.IDs.New(payment.PrefixOrder),
				MerchantID: r.MerchantID, Order: o,
			}
			err := s.insert(ctx, tx, &p)
			return p, err
		}, render)
		return err
	})
	if err == nil && !replayed {
		s.Due()
	}
	return resp, replayed, err
}

// Kept is the response that Place stored for the same request, if it did. Errors: those
// of idempotency.Begin.
func (s *Service) Kept(ctx context.Context, r idempotency.Request) (resp idempotency.Response, kept bool, err error) {
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		stored, err := idempotency.Begin(ctx, tx, r)
		if stored != nil {
			resp, kept = *stored, true
		}
		return err
	})
	return resp, kept, err
}

// Unfinished counts the sagas that are due or in a worker's hand. The pool is of
// postgres.OpenEngine.
func (s *Service) Unfinished(pool *pgxpool.Pool) *saga.Unfinished {
	return saga.NewUnfinished(pool, s.Sagas()...)
}

func (s *Service) insert(ctx context.Context, tx pgx.Tx, p *Placed) error {
	o, total := p.Order, p.Order.Total()
	var email []byte
	var err error
	if o.CustomerEmail() != "" {
		if email, err = s.Cipher.Encrypt([]byte(o.CustomerEmail()), EmailData(p.PaymentID)); err != nil {
			return fmt.Errorf("encrypt customer email: %w", err)
		}
	}
	method, sealed, err := s.Methods.Seal(o.PaymentMethod(), p.PaymentID)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	// orders_one_live_or_won_key is the semantic lock; a live rival's commit is waited for.
	err = tx.QueryRow(ctx, `
		INSERT INTO orders (merchant_id, id, reference, customer_reference, customer_email_ciphertext, currency, amount,
			status, sequence, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'placed', 1, clock_timestamp())
		ON CONFLICT (merchant_id, reference_key(reference)) WHERE status IN ('placed', 'confirmed') AND NOT reference_repeated DO NOTHING
		RETURNING created_at`,
		p.MerchantID, p.OrderID, o.Reference(), o.CustomerReference(), email, total.Currency().String(), total.Amount()).Scan(&p.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return referenceTaken(ctx, tx, *p)
	}
	if err != nil {
		return fmt.Errorf("insert order: %w", err)
	}
	p.CreatedAt = p.CreatedAt.UTC()
	data := payment.PlacedData{
		Amount: total.Amount(), Currency: total.Currency().String(), PaymentMethod: method, PaymentMethodCiphertext: sealed, CaptureMethod: o.CaptureMethod(),
		Customer:  payment.Customer{Reference: o.CustomerReference(), EmailCiphertext: email},
		Reference: o.Reference(),
	}
	skus, quantities, amounts := []string{}, []int64{}, []int64{}
	for _, l := range o.Lines() {
		data.Lines = append(data.Lines, payment.LineData{SKU: l.SKU(), Quantity: l.Quantity(), UnitAmount: l.UnitAmount()})
		skus, quantities, amounts = append(skus, l.SKU()), append(quantities, l.Quantity()), append(amounts, l.UnitAmount())
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO order_lines (merchant_id, order_id, line, sku, quantity, unit_amount)
		SELECT $1, $2, n - 1, sku, quantity, unit_amount
		FROM unnest($3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS l (sku, quantity, unit_amount, n)`,
		p.MerchantID, p.OrderID, skus, quantities, amounts); err != nil {
		return fmt.Errorf("insert order lines: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO payments (merchant_id, id, order_id, status, currency, amount, payment_method, payment_method_ciphertext, capture_method, created_at)
		VALUES ($1, $2, $3, 'processing', $4, $5, $6, $7, $8, $9)`,
		p.MerchantID, p.PaymentID, p.OrderID, total.Currency().String(), total.Amount(), method, sealed, o.CaptureMethod(), p.CreatedAt); err != nil {
		return fmt.Errorf("insert payment: %w", err)
	}
	state := sagaData{
		MerchantID: p.MerchantID, OrderID: p.OrderID, PaymentID: p.PaymentID,
		Amount: total.Amount(), Currency: total.Currency().String(), PaymentMethod: sealed, CaptureMethod: o.CaptureMethod(),
	}
	raw, err := state.encode()
	if err != nil {
		return err
	}
	definition := s.automatic()
	if o.CaptureMethod() == payment.CaptureManual {
		definition = s.manual()
	}
	if err := definition.Begin(ctx, tx, saga.Begin{
		MerchantID: p.MerchantID, ID: s.IDs.New(payment.PrefixSaga), Subject: p.OrderID, Trace: traceparent(ctx), Data: raw,
	}); err != nil {
		return err
	}
	event := state.event()
	event.Status, event.Placed = payment.StatusProcessing, &data
	m, err := s.message(payment.EventOrderPlaced, 1, p.CreatedAt, traceparent(ctx), event)
	if err != nil {
		return err
	}
	return outbox.Append(ctx, tx, m)
}

// referenceTaken tells a won order from a live one, by orders_one_live_or_won. An order
// from before there were business keys may have the reference in another form: only if
// there is none in this form is it looked for, which reads all of the merchant's orders,
// because row-level security keeps reference_key out of an index's condition.
func referenceTaken(ctx context.Context, tx pgx.Tx, p Placed) error {
	var paid bool
	if err := tx.QueryRow(ctx, `
		SELECT CASE WHEN count(*) > 0 THEN bool_or(status = 'confirmed') ELSE EXISTS (
			SELECT FROM orders WHERE merchant_id = $1 AND status = 'confirmed' AND reference_key(reference) = $2) END
		FROM orders WHERE merchant_id = $1 AND reference = $2 AND status IN ('placed', 'confirmed')`,
		p.MerchantID, p.Order.Reference()).Scan(&paid); err != nil {
		return fmt.Errorf("look for the order's reference: %w", err)
	}
	if paid {
		return payment.Errorf(payment.CodeOrderAlreadyPaid, "This order has been paid already.")
	}
	return payment.Errorf(payment.CodeOrderInProgress, "A payment of this order is in progress.")
}
