package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"text/tabwriter"

	"payments/internal/config"
	"payments/internal/order"
	"payments/internal/rekey"
)

// errOlderKeys: the output has told where they are still needed.
var errOlderKeys = errors.New("an older key is still needed, or a value cannot be read")

// rotateKeyset prints the variable's keyset after the step.
func (e environment) rotateKeyset(step func(string) (string, error), variable string) error {
	keyset, err := e.required(variable)
	if err != nil {
		return err
	}
	next, err := step(keyset)
	if err != nil {
		return fmt.Errorf("%s %w", variable, err)
	}
	_, err = fmt.Fprintf(e.stdout, "%s=%s\n", variable, next)
	return err
}

// reencrypt makes anew what is under older keys, as the tables' owner.
func (e environment) reencrypt(ctx context.Context) error {
	flags := flag.NewFlagSet("secrets reencrypt", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	check := flags.Bool("check", false, "count only, and change nothing")
	batch := flags.Int("batch", 500, "how many rows are read and written at once")
	if err := flags.Parse(e.args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *batch < 1 || *batch > 10_000 {
		return errors.New("-batch must be from 1 to 10000")
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
	counts, err := rekey.Run(ctx, rekey.Config{
		Write: write, Read: read, Pepper: c.Pepper, Cipher: c.Cipher, Methods: order.PaymentMethods(c.Pepper, c.Cipher), Batch: *batch, Check: *check,
	})
	return errors.Join(err, e.printCounts(counts), rekey.AddUses(ctx, write, c.Cipher))
}

func (e environment) printCounts(counts []rekey.Count) error {
	out := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "VALUES\tRENEWED\tOLDER\tUNREADABLE\t COLUMN")
	var left error
	for _, n := range counts {
		fmt.Fprintf(out, "%d\t%d\t%d\t%d\t %s\n", n.Values, n.Renewed, n.Older, n.Unreadable, n.Column)
		if n.Left() {
			left = errOlderKeys
		}
	}
	return errors.Join(out.Flush(), left)
}
