package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/urfave/cli/v3"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/secret"
	"payments/internal/telemetry"
)

// demoStock is what each demo merchant has at first.
var demoStock = map[string]int64{"TSHIRT-M": 1_000_000, "TSHIRT-L": 1_000_000, "MUG": 1_000_000, "POSTER": 5}

func (e environment) seedCommand() *cli.Command {
	return &cli.Command{
		Name: "seed", Usage: "make the demo merchants, keys and stock; with -payments N, N ended payments",
		Description: about("What exists stays as it is. A key that is made and not given is printed, as NAME=value.", "payments seed", "payments seed -payments 1000000 -merchants 50"),
		Flags: shows(
			&cli.IntFlag{Name: "payments", Usage: "how many payments to make"},
			&cli.IntFlag{Name: "merchants", Value: 50, Usage: "of how many merchants, the second with half of the first's, and so on"},
			&cli.IntFlag{Name: "timelines", Value: 100_000, Usage: "how many of the newest payments get a timeline, the largest table by far"},
			&cli.IntFlag{Name: "days", Value: 365, Usage: "over how many days, which end before idempotency keys are kept"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "another number makes other payments"},
			&cli.BoolFlag{Name: "beside-live", Usage: "although there are payments"},
		),
		Action: alone(func(ctx context.Context, c *cli.Command) error {
			if slices.ContainsFunc([]string{"payments", "merchants", "timelines", "days", "seed", "beside-live"}, c.IsSet) {
				return e.seedPayments(ctx, c)
			}
			made, err := e.seedDatabase(ctx)
			return errors.Join(err, e.showVariables(c, made))
		}),
	}
}

// seedDatabase makes the demo's merchants, their keys and stock, where what exists
// stays as it is. It gives the keys that nobody knows yet.
func (e environment) seedDatabase(ctx context.Context) (made variables, err error) {
	url, err := e.required("PAYMENTS_DATABASE_URL")
	if err != nil {
		return made, err
	}
	pepper, err := e.pepper()
	if err != nil {
		return made, err
	}
	pool, err := openMigrated(ctx, "PAYMENTS_DATABASE_URL", url)
	if err != nil {
		return made, err
	}
	defer pool.Close()
	for _, s := range []seeded{
		{"PAYMENTS_API_KEY", "Demo shop", access.RoleMerchant},
		{"PAYMENTS_API_KEY_2", "Second shop", access.RoleMerchant},
		{"PAYMENTS_OPERATOR_KEY", "Demo operator", access.RoleOperator},
		// What takes two persons takes two of the demo's operators.
		{"PAYMENTS_OPERATOR_KEY_2", "Second operator", access.RoleOperator},
	} {
		text, err := e.seedOne(ctx, pool, pepper, s)
		if err != nil {
			return made, err
		}
		if text != "" {
			made = append(made, [2]string{s.variable, text})
		}
	}
	return made, nil
}

// seeded is one of the demo's keys: the variable that has it, and who holds it. Of a merchant's
// role the holder is the merchant as well.
type seeded struct {
	variable, holder string
	role             access.Role
}

// seedOne makes the merchant and its stock, and the key: the one of the variable, or a fresh
// one, whose text it gives. A key that only two persons can make is left out, with a word.
func (e environment) seedOne(ctx context.Context, pool *pgxpool.Pool, pepper *secret.Pepper, s seeded) (fresh string, err error) {
	spec := access.KeySpec{Mode: access.ModeTest, Role: s.role, Holder: s.holder, APIVersion: api.NewestVersion()}
	if s.role.OfMerchant() {
		if spec.MerchantID, err = seedMerchant(ctx, pool, s.holder); err != nil {
			return "", err
		}
	}
	given := e.value(s.variable)
	text, key, err := access.NewKey(generator(), pepper, spec)
	if given != "" {
		key, err = access.StoredKey(pepper, given, spec)
	}
	if err != nil {
		return "", usagef("%s: %w", s.variable, err)
	}
	keys := access.NewKeys(pool, pepper, generator(), telemetry.NewLogger(e.stderr, slog.LevelWarn, "text"))
	_, err = keys.Seed(ctx, access.By{Source: access.SourceSeed, Origin: whereFrom()}, key)
	if refusal, ok := errors.AsType[*payment.Error](err); ok && refusal.Code == payment.CodeSecondOperator {
		_, err = fmt.Fprintf(e.stderr, "%s is not made. %s See `payments keys`.\n", s.variable, refusal.Message)
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", s.variable, err)
	}
	if given != "" {
		return "", nil
	}
	return text, nil
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
