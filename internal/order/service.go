package order

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/await"
	"payments/internal/groupcommit"
	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/saga"
	"payments/internal/secret"
)

// Config of a Service; every member but Placed is needed.
type Config struct {
	Pool     *pgxpool.Pool
	Engine   *pgxpool.Pool // of postgres.OpenEngine, on the same database, for reads of many payments by their keys; nil: Pool
	IDs      payment.Generator
	Cipher   *secret.Cipher
	Methods  *secret.Tokens // of payment methods, each sealed for its payment's id
	Provider provider.Provider
	// Former says that the provider's account is not the one in use for new payments: this
	// service works for the payments that were made with it, and does not record it as in use.
	Former bool
	// Due is called after each commit that made a saga due, as a hint.
	Due func()
	// Wrote is called after each commit of orders that were placed, as a hint: it wrote events.
	Wrote func()
	// Worker gives the worker of this process, in whose hand placed orders begin. nil, or a nil
	// worker: they begin as due, for whichever worker claims them.
	Worker func() *saga.Worker
	// Deadline of an order that has not come to its pivot; CaptureWindow is how long a
	// manual capture may be waited for; Horizon is that of the saga's policy.
	Deadline, CaptureWindow, Horizon time.Duration
}

// Service places orders and moves them. Its zero value is of no use.
type Service struct {
	Config
	accounts *accounts
	placings *groupcommit.Group[*placing]
	notices  *groupcommit.Group[*notice]
	outcomes *await.Group[paymentKey, payment.Status]
}

// New makes a service.
func New(c Config) *Service {
	if c.Engine == nil {
		c.Engine = c.Pool
	}
	if c.Due == nil {
		c.Due = func() {}
	}
	if c.Wrote == nil {
		c.Wrote = func() {}
	}
	if c.Worker == nil {
		c.Worker = func() *saga.Worker { return nil }
	}
	s := &Service{Config: c, accounts: &accounts{}}
	s.placings = groupcommit.New(maxPlacings, parallelPlacings, s.placeAll)
	s.notices = newNotices(s)
	s.outcomes = await.New(lookEvery, s.statuses)
	return s
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
