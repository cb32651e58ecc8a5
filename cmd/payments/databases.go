package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"payments/internal/postgres"
)

// checkDatabases refuses a database whose schema is too old for this program, and one
// where a saga's version is registered with other steps.
func (s *service) checkDatabases(ctx context.Context) error {
	if err := s.write.Ping(ctx); err != nil {
		return fmt.Errorf("PAYMENTS_DATABASE_URL: %w", err)
	}
	if s.read != s.write {
		if err := s.read.Ping(ctx); err != nil {
			return fmt.Errorf("PAYMENTS_READ_DATABASE_URL: %w", err)
		}
	}
	return s.worker.Register(ctx)
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
