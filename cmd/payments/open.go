package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/config"
	"payments/internal/postgres"
	"payments/internal/secret"
)

// openWrite opens the database of the write model.
func (e environment) openWrite(ctx context.Context) (*pgxpool.Pool, error) {
	return e.open(ctx, "PAYMENTS_DATABASE_URL")
}

// openRead opens the database that holds the read model and its inbox.
func (e environment) openRead(ctx context.Context) (*pgxpool.Pool, error) {
	const own = "PAYMENTS_READ_DATABASE_URL"
	if e.value(own) == "" {
		return e.openWrite(ctx)
	}
	return e.open(ctx, own)
}

func (e environment) open(ctx context.Context, variable string) (*pgxpool.Pool, error) {
	url, err := e.required(variable)
	if err != nil {
		return nil, err
	}
	return openMigrated(ctx, variable, url)
}

// openOwner opens both models as the owner of their tables; they may lie in one database.
func openOwner(ctx context.Context, c config.Owner) (write, read *pgxpool.Pool, closeBoth func(), err error) {
	if write, err = openMigrated(ctx, c.WriteVariable, c.WriteOwnerURL); err != nil {
		return nil, nil, nil, err
	}
	if c.ReadOwnerURL == c.WriteOwnerURL {
		return write, write, write.Close, nil
	}
	if read, err = openMigrated(ctx, "PAYMENTS_READ_DATABASE_URL", c.ReadOwnerURL); err != nil {
		write.Close()
		return nil, nil, nil, err
	}
	return write, read, func() { read.Close(); write.Close() }, nil
}

// openMigrated refuses a database that cannot be reached, or whose schema is too old.
func openMigrated(ctx context.Context, variable, url string) (*pgxpool.Pool, error) {
	pool, err := postgres.OpenMigrated(ctx, url)
	if err != nil {
		return nil, usagef("%s %w", variable, err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fit(fmt.Errorf("%s: %w", variable, err))
	}
	return pool, nil
}

// fit tells a database that is away from one that the variable should not name.
func fit(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if postgres.Unavailable(err) {
		return unreachableError{err}
	}
	return usageError{err}
}

func (e environment) pepper() (*secret.Pepper, error) {
	keyset, err := e.required("PAYMENTS_PEPPER_KEYSET")
	if err != nil {
		return nil, err
	}
	pepper, err := secret.ParseMAC(keyset)
	if err != nil {
		return nil, usagef("PAYMENTS_PEPPER_KEYSET %w", err)
	}
	return pepper, nil
}
