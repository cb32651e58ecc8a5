package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"payments/internal/config"
	"payments/internal/order"
)

// errDiffers is a comparison's no: the output has told what differs.
var errDiffers = errors.New("the books and the provider differ")

// notComparedError is why a comparison could not be made, which says nothing about the books.
type notComparedError struct{ error }

func (notComparedError) exitCode() int { return 2 }

func (n notComparedError) Unwrap() error { return n.error }

// reconcile compares a range with the provider: exit 0 if nothing differs, 1 if something
// does, 2 if the comparison could not be made.
func reconcile(ctx context.Context, e environment) error {
	err := runReconcile(ctx, e)
	if err == nil || errors.Is(err, errDiffers) {
		return err
	}
	return notComparedError{err}
}

func runReconcile(ctx context.Context, e environment) error {
	flags := flag.NewFlagSet("reconcile", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	from := flags.String("from", "", "the range's beginning: a time by RFC 3339, or a day in UTC")
	to := flags.String("to", "", "its end, which is not part of it; now by default")
	repair := flags.Bool("repair", false, "let the books follow what is safe, such as a refund that failed; the rest waits for an operator")
	cursor := flags.String("cursor", "", "go on where an earlier comparison of the same range stopped")
	rate := flags.Int("rate", 10, "requests to the provider in a second, at most")
	if err := flags.Parse(e.args); err != nil {
		return err
	}
	if e.args = flags.Args(); e.noArguments() != nil {
		return e.noArguments()
	}
	r := order.RangeComparison{Cursor: *cursor, Follow: *repair, To: time.Now()}
	var err error
	if r.From, err = parseTime("-from", *from); err != nil {
		return err
	}
	if *to != "" {
		if r.To, err = parseTime("-to", *to); err != nil {
			return err
		}
	}
	switch {
	case !r.From.Before(r.To):
		return errors.New("-from must be before -to")
	case *rate < 1 || *rate > 1000:
		return errors.New("-rate must be from 1 to 1000")
	}
	c, err := config.Load(e.lookup)
	if err != nil {
		return err
	}
	bank, err := newProvider(c.Bank, c.ProviderCalls)
	if err != nil {
		return err
	}
	pool, err := openMigrated(ctx, "PAYMENTS_DATABASE_URL", c.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	orders := order.New(order.Config{
		Pool: pool, IDs: generator(), Cipher: c.Cipher, Methods: order.PaymentMethods(c.Pepper, c.Cipher), Provider: bank,
		Deadline: c.OrderDeadline, CaptureWindow: c.CaptureWindow, Horizon: c.ProviderHorizon,
	})
	r.Pause = order.Pace(*rate)
	reached := *cursor
	r.Reached = func(cursor string) error {
		reached = cursor
		return nil
	}
	r.Found = func(d order.Difference) error {
		state := "open"
		if d.Followed {
			state = "repaired"
		}
		_, err := fmt.Fprintf(e.stdout, "%s  %-21s  %-8s  %d  %s  %s\n", d.PaymentID, d.Kind, state, d.Amount, d.Subject, d.Detail)
		return err
	}
	result, err := orders.CompareRange(ctx, r)
	if err != nil {
		if reached != "" {
			_, _ = fmt.Fprintf(e.stderr, "payments: go on with -from %s -to %s -cursor %q\n", r.From.Format(time.RFC3339Nano), r.To.Format(time.RFC3339Nano), reached)
		}
		return fmt.Errorf("compare with the provider: %w", err)
	}
	if _, err := fmt.Fprintf(e.stdout, "%d payments compared, %d differences, %d payments moved meanwhile\n",
		result.Payments, result.Differences, result.Moving); err != nil {
		return err
	}
	if result.Differences > 0 {
		return errDiffers
	}
	return nil
}

// parseTime takes a time by RFC 3339, or a day in UTC.
func parseTime(name, value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, fmt.Errorf("%s is missing", name)
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, value); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s must be a time such as 2026-11-30T12:00:00Z, or a day such as 2026-11-30", name)
}

// reconcileProvider compares the last days with the provider, in one process at a time.
func (s *service) reconcileProvider(ctx context.Context) error {
	const loop = "reconcile"
	r, err := order.NewReconciler(s.orders, order.ReconcilerConfig{
		Interval: s.Reconcile.Interval, Days: s.Reconcile.Days, Pause: order.Pace(s.Reconcile.Rate),
		Beat: func() { s.monitor.Beat(loop) }, Now: time.Now, Log: s.log, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.loop(ctx, loop, 15*time.Second, r.Turn, nil)
	return nil
}
