package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/postgres"
)

// checkDatabases refuses a database that is not in UTF-8, one behind a pooler that does not
// keep sessions, one whose schema is too old for this program, and one where a saga's
// version is registered with other steps.
func (s *service) checkDatabases(ctx context.Context) error {
	if err := checkDatabase(ctx, s.DatabaseURL, s.write); err != nil {
		return fit(fmt.Errorf("PAYMENTS_DATABASE_URL: %w", err))
	}
	if s.read != s.write {
		if err := checkDatabase(ctx, s.ReadDatabaseURL, s.read); err != nil {
			return fit(fmt.Errorf("PAYMENTS_READ_DATABASE_URL: %w", err))
		}
	}
	return fit(s.worker.Register(ctx))
}

func checkDatabase(ctx context.Context, url string, pool *pgxpool.Pool) error {
	if err := postgres.CheckSessions(ctx, url); err != nil {
		return err
	}
	return pool.Ping(ctx)
}

// awaitDatabases makes the checks of the start for a process that started while Postgres
// was away. What they refuse ends the process, as it would have stopped the start. Nothing
// is written in between: the pools give no connection to an old schema, and a saga of a
// changed definition neither begins nor moves.
func (s *service) awaitDatabases(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := s.checkDatabases(ctx)
		if err != nil && !postgres.Unavailable(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
	if errors.Is(err, context.Canceled) {
		return nil // the process stops
	}
	return err
}
