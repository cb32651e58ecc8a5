package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v3"

	"payments/internal/config"
	"payments/internal/order"
)

// errDiffers is a comparison's no: the output has told what differs.
var errDiffers = errors.New("the books and the provider differ")

func (e environment) reconcileCommand() *cli.Command {
	return &cli.Command{
		Name: "reconcile", Usage: "compare all payments of a range with the provider",
		Description: about("Exit code 1 if something differs.", "payments reconcile -from 2026-11-01 -to 2026-11-30", "payments reconcile -from 2026-11-30 -repair"),
		Flags: shows(
			&cli.StringFlag{Name: "from", Usage: "the range's beginning: a `TIME` by RFC 3339, or a day in UTC"},
			&cli.StringFlag{Name: "to", Usage: "its end, a `TIME` which is not part of it; now by default"},
			&cli.BoolFlag{Name: "repair", Usage: "let the books follow what is safe, such as a refund that failed; the rest waits for an operator"},
			&cli.StringFlag{Name: "cursor", Usage: "go on where an earlier comparison of the same range stopped"},
			&cli.IntFlag{Name: "rate", Value: 10, Usage: "requests to the provider in a second, at most"},
		),
		Action: alone(e.reconcile),
	}
}

func parseComparison(cmd *cli.Command) (r order.RangeComparison, err error) {
	r = order.RangeComparison{Cursor: cmd.String("cursor"), Follow: cmd.Bool("repair")}
	if r.From, r.To, err = parseRange(cmd); err != nil {
		return r, err
	}
	if r.To.IsZero() {
		r.To = time.Now()
	}
	rate := cmd.Int("rate")
	switch {
	case r.From.IsZero():
		return r, usagef("-from is required and not set")
	case !r.From.Before(r.To):
		return r, usagef("-from must be before -to")
	case rate < 1 || rate > 1000:
		return r, usagef("-rate must be from 1 to 1000")
	}
	r.Pause = order.Pace(rate)
	return r, nil
}

type differenceShown struct {
	Object   string `json:"object"`
	Merchant string `json:"merchant"`
	Payment  string `json:"payment"`
	Kind     string `json:"kind"`
	Subject  string `json:"subject"`
	Amount   int64  `json:"amount"`
	Detail   string `json:"detail"`
	Repaired bool   `json:"repaired"`
}

type reconciliationShown struct {
	Object        string            `json:"object"`
	From          time.Time         `json:"from"`
	To            time.Time         `json:"to"`
	Payments      int64             `json:"payments"`
	Moving        int64             `json:"moving"`         // changed during every look
	OtherAccounts int64             `json:"other_accounts"` // left out
	Differences   []differenceShown `json:"differences"`
}

func (e environment) reconcile(ctx context.Context, cmd *cli.Command) error {
	r, err := parseComparison(cmd)
	if err != nil {
		return err
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
		Pool: pool, IDs: generator(), Cipher: c.Cipher, Methods: order.PaymentMethods(c.Pepper, c.Cipher), Provider: bank, Former: true, // a command does not change which account is in use
		Deadline: c.OrderDeadline, CaptureWindow: c.CaptureWindow, Horizon: c.ProviderHorizon,
	})
	reached := r.Cursor
	r.Reached = func(cursor string) error {
		reached = cursor
		return nil
	}
	shown := reconciliationShown{Object: "reconciliation", From: r.From.UTC(), To: r.To.UTC(), Differences: []differenceShown{}}
	r.Found = func(d order.Difference) error {
		if asJSON(cmd) {
			shown.Differences = append(shown.Differences, differenceShown{"difference", d.MerchantID, d.PaymentID, string(d.Kind), d.Subject, d.Amount, d.Detail, d.Followed})
			return nil
		}
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
		return unreachableError{fmt.Errorf("compare with the provider: %w", err)}
	}
	shown.Payments, shown.Moving, shown.OtherAccounts = result.Payments, result.Moving, result.OtherAccounts
	if err := e.show(cmd, shown, func(w io.Writer) {
		fmt.Fprintf(w, "%d payments compared, %d differences, %d payments moved meanwhile, %d of other accounts left out\n",
			result.Payments, result.Differences, result.Moving, result.OtherAccounts)
	}); err != nil {
		return err
	}
	if result.Payments == 0 && result.OtherAccounts > 0 {
		return errors.New("no payment of the range was made with the account of these credentials")
	}
	if result.Differences > 0 {
		return errDiffers
	}
	return nil
}

// reconcileProvider compares the last days with the provider, in one process at a time.
func (s *service) reconcileProvider(ctx context.Context) error {
	const loop = "reconcile"
	r, err := order.NewReconciler(s.orders, order.ReconcilerConfig{
		Interval: s.Reconcile.Interval, Days: s.Reconcile.Days, Pause: order.Pace(s.Reconcile.Rate),
		Heartbeat: func() { s.monitor.Heartbeat(loop) }, Now: time.Now, Log: s.log, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.loop(ctx, loop, 15*time.Second, r.RunOnce, nil)
	return nil
}
