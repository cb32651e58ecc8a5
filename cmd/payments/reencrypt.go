package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"payments/internal/config"
	"payments/internal/order"
	"payments/internal/rekey"
)

// errOlderKeys: the output has told where they are still needed.
var errOlderKeys = errors.New("an older key is still needed, or a value cannot be read")

// rotateKeyset prints the variable's keyset after the step.
func (e environment) rotateKeyset(c *cli.Command, step func(string) (string, error)) error {
	variable, err := oneArgument(c, "one variable of a keyset")
	if err != nil {
		return err
	}
	keyset, err := e.required(variable)
	if err != nil {
		return err
	}
	next, err := step(keyset)
	if err != nil {
		return usagef("%s %w", variable, err)
	}
	return e.showVariables(c, variables{{variable, next}})
}

func (e environment) reencryptCommand() *cli.Command {
	return &cli.Command{
		Name: "reencrypt", Usage: "make anew what is stored under older keys",
		Description: about("Works as the tables' owner, while the service runs. Exit code 1 if an older key is still needed.", "payments secrets reencrypt", "payments secrets reencrypt -check -output json"),
		Flags: shows(
			&cli.BoolFlag{Name: "check", Usage: "count only, and change nothing"},
			&cli.IntFlag{Name: "batch", Value: 500, Usage: "how many rows are read and written at once"}),
		Action: alone(e.reencrypt),
	}
}

func (e environment) reencrypt(ctx context.Context, cmd *cli.Command) error {
	batch := cmd.Int("batch")
	if batch < 1 || batch > 10_000 {
		return usagef("-batch must be from 1 to 10000")
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
	bar := e.progress("values", 0)
	counts, err := rekey.Run(ctx, rekey.Config{
		Done:  func(column string, n int64) { bar.at(n, column) },
		Write: write, Read: read, Pepper: c.Pepper, Cipher: c.Cipher, Methods: order.PaymentMethods(c.Pepper, c.Cipher), Batch: batch, Check: cmd.Bool("check"),
	})
	bar.end()
	return errors.Join(err, e.printCounts(cmd, counts), rekey.AddUses(ctx, write, c.Cipher))
}

type countShown struct {
	Object     string `json:"object"`
	Column     string `json:"column"`
	Values     int64  `json:"values"`
	Renewed    int64  `json:"renewed"`
	Older      int64  `json:"older"`
	Unreadable int64  `json:"unreadable"`
}

func (e environment) printCounts(c *cli.Command, counts []rekey.Count) error {
	var left error
	all := listOf[countShown](nil)
	for _, n := range counts {
		all.Data = append(all.Data, countShown{"reencryption", n.Column, n.Values, n.Renewed, n.Older, n.Unreadable})
		if n.Left() {
			left = errOlderKeys
		}
	}
	return errors.Join(e.show(c, all, func(w io.Writer) {
		out := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(out, "VALUES\tRENEWED\tOLDER\tUNREADABLE\t COLUMN")
		for _, n := range all.Data {
			fmt.Fprintf(out, "%d\t%d\t%d\t%d\t %s\n", n.Values, n.Renewed, n.Older, n.Unreadable, n.Column)
		}
		_ = out.Flush()
	}), left)
}
