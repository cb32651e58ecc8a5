package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"payments/internal/config"
	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/seed"
)

// keptFor is as long as an idempotency key is kept: what is older has none.
const keptFor = idempotency.Retention + 24*time.Hour

// seedPayments fills a database for measuring, as the schema's owner.
func seedPayments(ctx context.Context, e environment) error {
	flags := flag.NewFlagSet("seed", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	payments := flags.Int("payments", 0, "how many payments to make")
	merchants := flags.Int("merchants", 50, "of how many merchants, the second with half of the first's, and so on")
	timelines := flags.Int("timelines", 100_000, "how many of the newest payments get a timeline, the largest table by far")
	days := flags.Int("days", 365, "over how many days, which end before idempotency keys are kept")
	number := flags.Uint64("seed", 1, "another number makes other payments")
	beside := flags.Bool("beside-live", false, "although there are payments")
	if err := flags.Parse(e.args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *payments < 1 || *merchants < 1 || *days < 1 {
		return errors.New("-payments, -merchants and -days must be 1 or more")
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
	told := begun
	rate := func(n int) string {
		return fmt.Sprintf("%d payments, %.0f/s", n, float64(n)/time.Since(begun).Seconds())
	}
	err = seed.Run(ctx, seed.Config{
		Write: write, Read: read, Payments: *payments, Merchants: *merchants, Timelines: *timelines,
		Begin: end.AddDate(0, 0, -*days), End: end, Seed: *number, Beside: *beside,
		Methods: order.PaymentMethods(c.Pepper, c.Cipher),
		Done: func(n int) {
			if time.Since(told) > 10*time.Second {
				told = time.Now()
				fmt.Fprintln(e.stdout, rate(n))
			}
		},
	})
	if errors.Is(err, seed.ErrNotEmpty) {
		return fmt.Errorf("%w with -beside-live", err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s, analyzed, in %s\n", rate(*payments), time.Since(begun).Round(time.Second))
	return err
}
