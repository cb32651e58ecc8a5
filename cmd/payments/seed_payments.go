package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v3"

	"payments/internal/config"
	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/seed"
)

// keptFor is as long as an idempotency key is kept: what is older has none.
const keptFor = idempotency.Retention + 24*time.Hour

// seedPayments fills a database for measuring, as the schema's owner.
func (e environment) seedPayments(ctx context.Context, cmd *cli.Command) error {
	payments, merchants, days := cmd.Int("payments"), cmd.Int("merchants"), cmd.Int("days")
	if payments < 1 || merchants < 1 || days < 1 {
		return usagef("-payments, -merchants and -days must be 1 or more")
	}
	c, err := config.LoadOwner(e.lookup)
	if err != nil {
		return err
	}
	write, read, closeBoth, err := openOwner(ctx, c)
	if err != nil {
		return err
	}
	defer closeBoth()
	begun, end := time.Now(), time.Now().Add(-keptFor)
	bar := e.progress("payments", int64(payments))
	rate := func(n int) string {
		return fmt.Sprintf("%d payments, %.0f/s", n, float64(n)/time.Since(begun).Seconds())
	}
	err = seed.Run(ctx, seed.Config{
		Write: write, Read: read, Payments: payments, Merchants: merchants, Timelines: cmd.Int("timelines"),
		Begin: end.AddDate(0, 0, -days), End: end, Seed: cmd.Uint64("seed"), Beside: cmd.Bool("beside-live"),
		Methods: order.PaymentMethods(c.Pepper, c.Cipher),
		Done:    func(n int) { bar.at(int64(n), "") },
	})
	bar.end()
	if errors.Is(err, seed.ErrNotEmpty) {
		return fmt.Errorf("%w with -beside-live", err)
	}
	if err != nil {
		return err
	}
	took := time.Since(begun)
	return e.show(cmd, map[string]any{"object": "seed", "payments": payments, "merchants": merchants, "seconds": took.Seconds()}, func(w io.Writer) {
		fmt.Fprintf(w, "%s, analyzed, in %s\n", rate(payments), took.Round(time.Second))
	})
}
