package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
)

// demoStock is what each demo merchant has at first.
var demoStock = map[string]int64{"TSHIRT-M": 1_000_000, "TSHIRT-L": 1_000_000, "MUG": 1_000_000, "POSTER": 5}

// seedDatabase makes the demo's merchants, their keys and stock, where what exists
// stays as it is; or, with flags, payments by the million.
func seedDatabase(ctx context.Context, e environment) error {
	if len(e.args) > 0 {
		return seedPayments(ctx, e)
	}
	url, err := e.required("PAYMENTS_DATABASE_URL")
	if err != nil {
		return err
	}
	pepper, err := e.pepper()
	if err != nil {
		return err
	}
	pool, err := openMigrated(ctx, "PAYMENTS_DATABASE_URL", url)
	if err != nil {
		return err
	}
	defer pool.Close()
	for _, s := range []struct{ name, merchant string }{
		{"PAYMENTS_API_KEY", "Demo shop"}, {"PAYMENTS_API_KEY_2", "Second shop"}, {"PAYMENTS_OPERATOR_KEY", ""},
	} {
		if err := e.seedOne(ctx, pool, pepper, s.name, s.merchant); err != nil {
			return err
		}
	}
	return nil
}

// seedOne makes the merchant of this name, or none for the operator, its stock
// and its key: the one of the variable, or a fresh one that it prints.
func (e environment) seedOne(ctx context.Context, pool *pgxpool.Pool, pepper *secret.Pepper, variable, merchant string) error {
	spec := access.KeySpec{Mode: access.ModeTest, Role: access.RoleOperator, Holder: "Demo operator", APIVersion: api.NewestVersion()}
	if merchant != "" {
		id, err := seedMerchant(ctx, pool, merchant)
		if err != nil {
			return err
		}
		spec.Role, spec.MerchantID, spec.Holder = access.RoleMerchant, id, merchant
	}
	text := e.value(variable)
	if text != "" {
		key, err := access.StoredKey(pepper, text, spec)
		if err != nil {
			return fmt.Errorf("%s: %w", variable, err)
		}
		return insertKey(ctx, pool, key)
	}
	text, key, err := access.NewKey(generator(), pepper, spec)
	if err != nil {
		return err
	}
	if err := insertKey(ctx, pool, key); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s=%s\n", variable, text)
	return err
}

func insertKey(ctx context.Context, pool *pgxpool.Pool, key access.Key) error {
	return postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM api_keys WHERE id = $1)`, key.ID).Scan(&exists); err != nil || exists {
			return err
		}
		return access.InsertKey(ctx, tx, key)
	})
}

func seedMerchant(ctx context.Context, pool *pgxpool.Pool, name string) (id string, err error) {
	err = pool.QueryRow(ctx, `SELECT id FROM merchants WHERE name = $1 ORDER BY id LIMIT 1`, name).Scan(&id)
	if !errors.Is(err, pgx.ErrNoRows) {
		return id, err
	}
	id = generator().New(payment.PrefixMerchant)
	if _, err := pool.Exec(ctx, `INSERT INTO merchants (id, name) VALUES ($1, $2)`, id, name); err != nil {
		return "", fmt.Errorf("make merchant: %w", err)
	}
	var stock []payment.Stock
	for sku, onHand := range demoStock {
		s, err := payment.NewStock("", id, sku, onHand)
		if err != nil {
			return "", err
		}
		stock = append(stock, s)
	}
	_, err = order.SetStock(ctx, pool, stock)
	return id, err
}
