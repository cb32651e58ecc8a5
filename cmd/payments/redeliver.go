package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"payments/internal/webhook"
)

const webhooksUsage = "payments webhooks redeliver [-from TIME] [-to TIME] ENDPOINT"

// runWebhooks delivers what a merchant's endpoint missed. It needs the database alone; a
// process with the role webhooks makes the attempts.
func runWebhooks(ctx context.Context, e environment) error {
	if len(e.args) == 0 || e.args[0] != "redeliver" {
		return errors.New("name the subcommand redeliver: " + webhooksUsage)
	}
	flags := flag.NewFlagSet("webhooks redeliver", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	flags.Usage = func() { fmt.Fprintln(e.stderr, webhooksUsage) }
	from := flags.String("from", "", "events from this time on: RFC 3339, or a day in UTC")
	to := flags.String("to", "", "events before this time")
	if err := flags.Parse(e.args[1:]); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("name one endpoint: " + webhooksUsage)
	}
	var in webhook.Range
	var err error
	if *from != "" {
		if in.From, err = parseTime("-from", *from); err != nil {
			return err
		}
	}
	if *to != "" {
		if in.To, err = parseTime("-to", *to); err != nil {
			return err
		}
	}
	pool, err := e.openWrite(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	store := webhook.NewStore(pool, generator(), nil, webhook.Guard{})
	id := flags.Arg(0)
	merchantID, err := store.Merchant(ctx, id)
	if err != nil {
		return fmt.Errorf("endpoint %q: %w", id, err)
	}
	var all webhook.Redelivered
	for more := true; more; {
		done, err := store.RedeliverRange(ctx, merchantID, id, in)
		if err != nil {
			return fmt.Errorf("endpoint %q, after %d missed events and %d failed deliveries: %w", id, all.Missed, all.Failed, err)
		}
		all.Missed, all.Failed, more = all.Missed+done.Missed, all.Failed+done.Failed, done.More
	}
	_, err = fmt.Fprintf(e.stdout, "%d missed events and %d failed deliveries are due now.\n", all.Missed, all.Failed)
	return err
}
