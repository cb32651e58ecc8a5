package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"time"

	"payments/internal/audit"
)

func runAudit(ctx context.Context, e environment) error {
	flags := flag.NewFlagSet("audit", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	settled := flags.Bool("settled", false, "nothing may be under way any more")
	if err := flags.Parse(e.args); err != nil {
		return err
	}
	if e.args = flags.Args(); e.noArguments() != nil {
		return e.noArguments()
	}
	url, err := e.required("PAYMENTS_DATABASE_URL")
	if err != nil {
		return err
	}
	provider, err := e.required("PAYMENTS_PROVIDER_URL")
	if err != nil {
		return err
	}
	write, err := openMigrated(ctx, "PAYMENTS_DATABASE_URL", url)
	if err != nil {
		return err
	}
	defer write.Close()
	read := write
	if other := e.value("PAYMENTS_READ_DATABASE_URL"); other != "" && other != url {
		if read, err = openMigrated(ctx, "PAYMENTS_READ_DATABASE_URL", other); err != nil {
			return err
		}
		defer read.Close()
	}
	findings, err := audit.Audit{
		Write: write, Read: read, Ledger: provider + "/v1/operations",
		Client: &http.Client{Timeout: 10 * time.Minute}, Settled: *settled,
	}.Run(ctx)
	if err != nil {
		return fmt.Errorf("the audit could not be made: %w", err)
	}
	clean, err := audit.Print(e.stdout, findings)
	if err == nil && !clean {
		return errViolated
	}
	return err
}
