package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/urfave/cli/v3"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"payments/internal/audit"
	"payments/internal/config"
	"payments/internal/provider"
	"payments/internal/provider/stripe"
)

// errViolated is an audit's no: the output has told what is wrong.
var errViolated = errors.New("an invariant is violated")

func (e environment) auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "check the invariants, also under load",
		Description: about(`Compares the write model, the read model and the provider, and with -kafka the whole event log.
Exit code 1 if an invariant is violated.`, "payments audit", "payments audit -settled -kafka", "payments audit -from 2026-11-01 -output json"),
		Flags: shows(
			&cli.BoolFlag{Name: "settled", Usage: "nothing may be under way any more"},
			&cli.BoolFlag{Name: "kafka", Usage: "read the whole event log, too: each published event is in its partition, in sequence"},
			&cli.StringFlag{Name: "from", Usage: "compare with the provider only payments made at this `TIME` or later"},
			&cli.StringFlag{Name: "to", Usage: "compare with the provider only payments made before this `TIME`"},
		),
		Action: alone(e.audit),
	}
}

func (e environment) audit(ctx context.Context, cmd *cli.Command) error {
	from, to, err := parseRange(cmd)
	if err != nil {
		return err
	}
	log := cmd.Bool("kafka")
	c, err := config.LoadAudit(e.lookup, log)
	if err != nil {
		return err
	}
	bank, err := inspector(c)
	if err != nil {
		return err
	}
	a := audit.Audit{Provider: bank, From: from, To: to, Settled: cmd.Bool("settled")}
	closeBoth, err := e.openAudited(ctx, &a)
	if err != nil {
		return err
	}
	defer closeBoth()
	if log {
		events, err := newBroker(c.KafkaBrokers, c.KafkaPrefix, c.Kafka, tracenoop.NewTracerProvider().Tracer(""))
		if err != nil {
			return err
		}
		defer events.Close()
		a.Log = events
	}
	bar := e.progress("checked", 0)
	a.Done = func(what string, n int64) { bar.at(n, what) }
	findings, err := a.Run(ctx)
	bar.end()
	if err != nil {
		return unreachableError{fmt.Errorf("the audit could not be made: %w", err)}
	}
	clean, err := e.printFindings(cmd, findings)
	if err == nil && !clean {
		return errViolated
	}
	return err
}

type findingShown struct {
	Object     string   `json:"object"`
	Invariant  int      `json:"invariant"`
	Name       string   `json:"name"`
	Checked    int64    `json:"checked"`
	Violations int64    `json:"violations"`
	Named      []string `json:"named"` // at most 1,000 of them
	Note       *string  `json:"note"`  // what was not looked at, and why
}

func (e environment) printFindings(cmd *cli.Command, findings []audit.Finding) (clean bool, err error) {
	if !asJSON(cmd) {
		return audit.Print(e.stdout, findings)
	}
	clean = true
	var all []findingShown
	for _, f := range findings {
		s := findingShown{"audit_finding", f.Invariant, f.Name, f.Counted, int64(len(f.Violations)) + f.Unnamed, append([]string{}, f.Violations...), nil}
		if f.Note != "" {
			s.Note = &f.Note
		}
		clean = clean && s.Violations == 0
		all = append(all, s)
	}
	return clean, e.printJSON(listOf(all))
}

// openAudited opens both models, which may lie in one database.
func (e environment) openAudited(ctx context.Context, a *audit.Audit) (closeBoth func(), err error) {
	if a.Write, err = e.openWrite(ctx); err != nil {
		return nil, err
	}
	if a.Read, err = e.openRead(ctx); err != nil {
		a.Write.Close()
		return nil, err
	}
	return func() {
		for _, p := range []*pgxpool.Pool{a.Read, a.Write} {
			p.Close()
		}
	}, nil
}

func inspector(c config.Audit) (provider.Inspector, error) {
	if c.Provider == config.ProviderStripe {
		bank, err := stripe.New(c.StripeKey, stripe.Config{URL: c.StripeURL, Timeout: config.AuditTimeout, Now: time.Now})
		if err != nil {
			return nil, usagef("PAYMENTS_STRIPE_URL: %w", err)
		}
		return bank, nil
	}
	bank, err := provider.NewHTTP(c.ProviderURL, provider.HTTPConfig{Timeout: config.AuditTimeout})
	if err != nil {
		return nil, usagef("PAYMENTS_PROVIDER_URL: %w", err)
	}
	return bank, nil
}
