package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"payments/internal/audit"
	"payments/internal/config"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/provider/stripe"
)

// auditOptions are the flags of `payments audit`.
type auditOptions struct {
	settled, kafka bool
	from, to       time.Time
}

func (o *auditOptions) parse(e environment) error {
	flags := flag.NewFlagSet("audit", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	flags.BoolVar(&o.settled, "settled", false, "nothing may be under way any more")
	flags.BoolVar(&o.kafka, "kafka", false, "read the whole event log, too: each published event is in its partition, in sequence")
	at := func(to *time.Time) func(string) error {
		return func(s string) (err error) {
			if *to, err = time.Parse(time.DateOnly, s); err != nil {
				if *to, err = payment.ParseTime(s); err != nil {
					return errors.New("must be a date (2026-11-01) or an RFC 3339 time")
				}
			}
			return nil
		}
	}
	flags.Func("from", "compare with the provider only payments made at this time or later", at(&o.from))
	flags.Func("to", "compare with the provider only payments made before this time", at(&o.to))
	if err := flags.Parse(e.args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if !o.from.IsZero() && !o.to.IsZero() && !o.from.Before(o.to) {
		return errors.New("-to must be after -from")
	}
	return nil
}

func runAudit(ctx context.Context, e environment) error {
	var o auditOptions
	if err := o.parse(e); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return exitError{exitUsage, err}
	}
	c, err := config.LoadAudit(e.lookup, o.kafka)
	if err != nil {
		return exitError{exitUsage, err}
	}
	bank, err := inspector(c)
	if err != nil {
		return exitError{exitUsage, err}
	}
	a := audit.Audit{Provider: bank, From: o.from, To: o.to, Settled: o.settled}
	closeBoth, err := e.openAudited(ctx, &a)
	if err != nil {
		return err
	}
	defer closeBoth()
	if o.kafka {
		events, err := newBroker(c.KafkaBrokers, c.KafkaPrefix, c.Kafka, tracenoop.NewTracerProvider().Tracer(""))
		if err != nil {
			return exitError{exitUsage, err}
		}
		defer events.Close()
		a.Log = events
	}
	findings, err := a.Run(ctx)
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("the audit could not be made: %w", err)}
	}
	clean, err := audit.Print(e.stdout, findings)
	if err == nil && !clean {
		return exitError{exitViolated, errViolated}
	}
	return err
}

// openAudited opens both models, which may lie in one database.
func (e environment) openAudited(ctx context.Context, a *audit.Audit) (closeBoth func(), err error) {
	if a.Write, err = e.openWrite(ctx); err != nil {
		return nil, reached(err)
	}
	if a.Read, err = e.openRead(ctx); err != nil {
		a.Write.Close()
		return nil, reached(err)
	}
	return func() {
		for _, p := range []*pgxpool.Pool{a.Read, a.Write} {
			p.Close()
		}
	}, nil
}

// reached tells a database that is away from one that is named wrongly.
func reached(err error) error {
	if postgres.Unavailable(err) {
		return exitError{exitUnreachable, err}
	}
	return exitError{exitUsage, err}
}

func inspector(c config.Audit) (provider.Inspector, error) {
	if c.Provider == config.ProviderStripe {
		bank, err := stripe.New(c.StripeKey, stripe.Config{URL: c.StripeURL, Timeout: config.AuditTimeout, Now: time.Now})
		if err != nil {
			return nil, fmt.Errorf("PAYMENTS_STRIPE_URL: %w", err)
		}
		return bank, nil
	}
	bank, err := provider.NewHTTP(c.ProviderURL, provider.HTTPConfig{Timeout: config.AuditTimeout})
	if err != nil {
		return nil, fmt.Errorf("PAYMENTS_PROVIDER_URL: %w", err)
	}
	return bank, nil
}
