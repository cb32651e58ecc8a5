package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/secret"
	"payments/internal/telemetry"
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
	for _, s := range []seeded{
		{"PAYMENTS_API_KEY", "Demo shop", access.RoleMerchant},
		{"PAYMENTS_API_KEY_2", "Second shop", access.RoleMerchant},
		{"PAYMENTS_OPERATOR_KEY", "Demo operator", access.RoleOperator},
		// What takes two persons takes two of the demo's operators.
		{"PAYMENTS_OPERATOR_KEY_2", "Second operator", access.RoleOperator},
	} {
		if err := e.seedOne(ctx, pool, pepper, s); err != nil {
			return err
		}
	}
	return nil
}

// seeded is one of the demo's keys: the variable that has it, and who holds it. Of a merchant's
// role the holder is the merchant as well.
type seeded struct {
	variable, holder string
	role             access.Role
}

// seedOne makes the merchant and its stock, and the key: the one of the variable, or a fresh
// one that it prints. A key that only two persons can make is left out, with a word.
func (e environment) seedOne(ctx context.Context, pool *pgxpool.Pool, pepper *secret.Pepper, s seeded) (err error) {
	spec := access.KeySpec{Mode: access.ModeTest, Role: s.role, Holder: s.holder, APIVersion: api.NewestVersion()}
	if s.role.OfMerchant() {
		if spec.MerchantID, err = seedMerchant(ctx, pool, s.holder); err != nil {
			return err
		}
	}
	given := e.value(s.variable)
	text, key, err := access.NewKey(generator(), pepper, spec)
	if given != "" {
		key, err = access.StoredKey(pepper, given, spec)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.variable, err)
	}
	keys := access.NewKeys(pool, pepper, generator(), telemetry.NewLogger(e.stderr, slog.LevelWarn, "text"))
	_, err = keys.Seed(ctx, access.By{Source: access.SourceSeed, Origin: whereFrom()}, key)
	if refusal, ok := errors.AsType[*payment.Error](err); ok && refusal.Code == payment.CodeSecondOperator {
		_, err = fmt.Fprintf(e.stderr, "%s is not made. %s See `payments keys`.\n", s.variable, refusal.Message)
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.variable, err)
	}
	if given != "" {
		return nil
	}
	_, err = fmt.Fprintf(e.stdout, "%s=%s\n", s.variable, text)
	return err
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
