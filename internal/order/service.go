package order

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/saga"
	"payments/internal/secret"
)

// Service places orders and moves them. Its zero value is of no use.
type Service struct {
	pool       *pgxpool.Pool
	ids        payment.Generator
	cipher     *secret.Cipher
	provider   provider.Provider
	placed     func()
	definition saga.Definition
}

// New makes a service. placed is called after each commit of a new order, as a
// hint that a saga is due; it may be nil.
func New(pool *pgxpool.Pool, ids payment.Generator, cipher *secret.Cipher, p provider.Provider, placed func()) *Service {
	if placed == nil {
		placed = func() {}
	}
	s := &Service{pool: pool, ids: ids, cipher: cipher, provider: p, placed: placed}
	s.definition = s.define()
	return s
}

// Saga is the definition that a saga worker runs.
func (s *Service) Saga() saga.Definition { return s.definition }

// Placed is a new order and its payment.
type Placed struct {
	PaymentID, OrderID, MerchantID string
	Order                          payment.Order
	CreatedAt                      time.Time
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
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		stored, err := idempotency.Begin(ctx, tx, r)
		if err != nil {
			return err
		}
		if stored != nil {
			resp, replayed = *stored, true
			return nil
		}
		p := Placed{
			PaymentID: s.ids.New(payment.PrefixPayment), OrderID: s.ids.New(payment.PrefixOrder),
			MerchantID: r.MerchantID, Order: o, CreatedAt: s.ids.Now().UTC().Truncate(time.Microsecond),
		}
		if err := s.insert(ctx, tx, p); err != nil {
			return err
		}
		if resp, err = render(p); err != nil {
			return fmt.Errorf("render response: %w", err)
		}
		return idempotency.Store(ctx, tx, r, resp)
	})
	if err == nil && !replayed {
		s.placed()
	}
	return resp, replayed, err
}

func (s *Service) insert(ctx context.Context, tx pgx.Tx, p Placed) error {
	o, total := p.Order, p.Order.Total()
	var email []byte
	if o.CustomerEmail() != "" {
		var err error
		if email, err = s.cipher.Encrypt([]byte(o.CustomerEmail()), EmailData(p.PaymentID)); err != nil {
			return fmt.Errorf("encrypt customer email: %w", err)
		}
	}
	// orders_one_live_or_won is the semantic lock; a live rival's commit is waited for.
	inserted, err := tx.Exec(ctx, `
		INSERT INTO orders (merchant_id, id, reference, customer_reference, customer_email_ciphertext, currency, amount,
			status, sequence, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'placed', 1, $8)
		ON CONFLICT (merchant_id, reference) WHERE status IN ('placed', 'confirmed') DO NOTHING`,
		p.MerchantID, p.OrderID, o.Reference(), o.CustomerReference(), email, total.Currency().String(), total.Amount(), p.CreatedAt)
	if err != nil {
		return fmt.Errorf("insert order: %w", err)
	}
	if inserted.RowsAffected() == 0 {
		return referenceTaken(ctx, tx, p)
	}
	data := payment.PlacedData{
		Amount: total.Amount(), Currency: total.Currency().String(), PaymentMethod: o.PaymentMethod(),
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
		INSERT INTO payments (merchant_id, id, order_id, status, currency, amount, payment_method, created_at)
		VALUES ($1, $2, $3, 'processing', $4, $5, $6, $7)`,
		p.MerchantID, p.PaymentID, p.OrderID, total.Currency().String(), total.Amount(), o.PaymentMethod(), p.CreatedAt); err != nil {
		return fmt.Errorf("insert payment: %w", err)
	}
	state := sagaData{
		MerchantID: p.MerchantID, OrderID: p.OrderID, PaymentID: p.PaymentID,
		Amount: total.Amount(), Currency: total.Currency().String(), PaymentMethod: o.PaymentMethod(),
	}
	raw, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode saga data: %w", err)
	}
	if err := s.definition.Begin(ctx, tx, saga.Begin{
		MerchantID: p.MerchantID, ID: s.ids.New(payment.PrefixSaga), Subject: p.OrderID, Data: raw,
	}); err != nil {
		return err
	}
	event := state.event(payment.StatusProcessing)
	event.Placed = &data
	return s.append(ctx, tx, payment.EventOrderPlaced, 1, p.CreatedAt, event)
}

// referenceTaken tells a won order from a live one.
func referenceTaken(ctx context.Context, tx pgx.Tx, p Placed) error {
	var paid bool
	if err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM orders WHERE merchant_id = $1 AND reference = $2 AND status = 'confirmed')`,
		p.MerchantID, p.Order.Reference()).Scan(&paid); err != nil {
		return fmt.Errorf("look for the order's reference: %w", err)
	}
	if paid {
		return payment.Errorf(payment.CodeOrderAlreadyPaid, "This order has been paid already.")
	}
	return payment.Errorf(payment.CodeOrderInProgress, "A payment of this order is in progress.")
}
