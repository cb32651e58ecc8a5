package order_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack/devtest"
	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/secret/secrettest"
)

// BenchmarkPlaceRowLevelSecurity is the cost of the second wall where most is
// written: with it, for a tenant; and after the owner has taken it down.
func BenchmarkPlaceRowLevelSecurity(b *testing.B) {
	db := devtest.Database(b)
	pool, err := postgres.Open(b.Context(), db.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	pepper, cipher := secrettest.Keys(b)
	ids := payment.Generator{Now: time.Now, Random: rand.Reader}
	orders := order.New(order.Config{Pool: pool, IDs: ids, Cipher: cipher, Methods: order.PaymentMethods(pepper, cipher), Provider: (*provider.HTTP)(nil), Deadline: time.Hour, CaptureWindow: time.Hour})
	merchant := ids.New(payment.PrefixMerchant)
	if _, err := pool.Exec(b.Context(), `INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, merchant); err != nil {
		b.Fatal(err)
	}
	place := func(b *testing.B, ctx context.Context) {
		b.Helper()
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				o, err := payment.NewOrder(payment.Draft{
					Amount: 2499, Currency: "EUR", PaymentMethod: "pm_card_visa", CustomerReference: "cust-1", OrderReference: rand.Text(),
					Lines: []payment.DraftLine{{SKU: "TSHIRT-M", Quantity: 1, UnitAmount: 2499}},
				})
				if err == nil {
					_, _, err = orders.Place(ctx, idempotency.Request{MerchantID: merchant, Key: rand.Text()}, o,
						func(p order.Placed) (idempotency.Response, error) { return answer(p.PaymentID), nil })
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.Run("with", func(b *testing.B) { place(b, postgres.ForTenant(b.Context(), merchant)) })
	owner, err := pgx.Connect(b.Context(), db.OwnerURL)
	if err != nil {
		b.Fatal(err)
	}
	defer owner.Close(context.WithoutCancel(b.Context()))
	if _, err := owner.Exec(b.Context(), `
		DO $$ DECLARE t regclass; BEGIN
			FOR t IN SELECT polrelid::regclass FROM pg_policy LOOP
				EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', t);
			END LOOP;
		END $$`); err != nil {
		b.Fatal(err)
	}
	b.Run("without", func(b *testing.B) { place(b, b.Context()) })
}
