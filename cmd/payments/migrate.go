package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"payments/internal/config"
	"payments/internal/postgres"
)

func (e environment) migrateCommand() *cli.Command {
	return &cli.Command{
		Name: "migrate", Usage: "bring the schema up, and grant the service's role what it needs",
		Description: about("Works as the role of PAYMENTS_MIGRATE_DATABASE_URL, and grants to that of PAYMENTS_DATABASE_URL. It can be repeated.", "payments migrate"),
		Action: alone(func(ctx context.Context, _ *cli.Command) error {
			return migrate(ctx, e)
		}),
	}
}

// migrate also brings a separate read database up, whose owner is its role.
func migrate(ctx context.Context, e environment) error {
	c, err := config.LoadMigrate(e.lookup)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	warn := func(message string) { _, _ = fmt.Fprintln(e.stderr, "payments: warning:", message) }
	if err := postgres.MigrateWarning(ctx, c.OwnerURL, c.AppURL, warn); err != nil {
		variable := "PAYMENTS_MIGRATE_DATABASE_URL"
		if e.value(variable) == "" {
			variable = "PAYMENTS_DATABASE_URL"
		}
		return fit(fmt.Errorf("%s: %w", variable, err))
	}
	if read := e.value("PAYMENTS_READ_DATABASE_URL"); read != "" && read != c.AppURL {
		if err := postgres.Migrate(ctx, read, read); err != nil {
			return fit(fmt.Errorf("PAYMENTS_READ_DATABASE_URL: %w", err))
		}
	}
	_, err = fmt.Fprintln(e.stdout, "The schema is up to date.")
	return err
}
