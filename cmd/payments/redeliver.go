package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v3"

	"payments/internal/api"
	"payments/internal/webhook"
)

func (e environment) webhooksCommand() *cli.Command {
	return &cli.Command{
		Name: "webhooks", Usage: "deliver again what a merchant's endpoint missed",
		Description: about("", "payments webhooks redeliver whe_01m8702cxwf0xvsswam8j18mgk"),
		Commands: []*cli.Command{{
			Name: "redeliver", Usage: "make what an endpoint missed due now", ArgsUsage: "ENDPOINT",
			Description: about("Needs the database alone; a process with the role webhooks makes the attempts.",
				"payments webhooks redeliver -from 2026-11-30 -to 2026-12-01 whe_01m8702cxwf0xvsswam8j18mgk"),
			Flags: shows(
				&cli.StringFlag{Name: "from", Usage: "events from this `TIME` on: RFC 3339, or a day in UTC"},
				&cli.StringFlag{Name: "to", Usage: "events before this `TIME`"}),
			Action: e.redeliver,
		}},
	}
}

func (e environment) redeliver(ctx context.Context, c *cli.Command) error {
	id, err := oneArgument(c, "one endpoint")
	if err != nil {
		return err
	}
	var in webhook.Range
	if in.From, in.To, err = parseRange(c); err != nil {
		return err
	}
	pool, err := e.openWrite(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	store := webhook.NewStore(pool, generator(), nil, webhook.Guard{})
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
	return e.show(c, api.ShowRedelivery(id, all.Missed, all.Failed), func(w io.Writer) {
		fmt.Fprintf(w, "%d missed events and %d failed deliveries are due now.\n", all.Missed, all.Failed)
	})
}
