// Command bench measures what a payment costs and how fast payments are, beside peers in the same run.
// docs/performance.md says what each scenario means.
//
//	bench quick    a few minutes: accept, complete, latency, idle, and DBOS beside it
//	bench full     every scenario, five rounds; goes on where it was stopped
//	bench relays   the outbox alone, beside other outboxes
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"payments/bench/relays"
	"payments/bench/scenario"
	"payments/bench/stack"
	"payments/bench/textbook"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("want quick, full or relays")
	}
	switch args[0] {
	case "quick", "full":
		return measure(ctx, args[0] == "quick", args[1:], out)
	case "relays":
		return relays.Run(ctx, args[1:], out)
	case stack.BrokerCommand:
		return stack.RunBroker(ctx, args[1:])
	case textbook.Command:
		return textbook.RunCommand(ctx, args[1:])
	}
	return fmt.Errorf("%q is none of quick, full and relays", args[0])
}

func measure(ctx context.Context, quick bool, args []string, out io.Writer) error {
	o := scenario.Options{Quick: quick, Out: out, Rounds: 5}
	kind := "full"
	if quick {
		o.Rounds, kind = 3, "quick"
	}
	var only, settings string
	flags := flag.NewFlagSet("bench "+kind, flag.ContinueOnError)
	flags.StringVar(&o.Program, "program", "../bin/payments", "the service's program")
	flags.StringVar(&o.Dir, "results", "", "directory of the results; .results and the program's digest unless set")
	flags.IntVar(&o.Rounds, "rounds", o.Rounds, "rounds of each contender")
	flags.StringVar(&only, "only", "", "scenarios, by a comma")
	flags.StringVar(&settings, "settings", "", "Postgres settings to measure with, name=value by a comma")
	flags.StringVar(&o.Brokers, "brokers", "", "a Kafka to measure with instead of the embedded broker, host:port")
	flags.BoolVar(&o.Fresh, "fresh", false, "measure again what has results")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.Rounds < 1 {
		return errors.New("-rounds must be 1 or more")
	}
	o.Only, o.Settings = list(only), list(settings)
	var err error
	if o.Program, err = filepath.Abs(o.Program); err != nil {
		return err
	}
	if o.Dir == "" {
		content, err := os.ReadFile(o.Program)
		if err != nil {
			return fmt.Errorf("the service's program (make build): %w", err)
		}
		digest := sha256.Sum256(content)
		o.Dir = filepath.Join(".results", kind+"-"+hex.EncodeToString(digest[:6]))
	}
	return scenario.Run(ctx, o)
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
