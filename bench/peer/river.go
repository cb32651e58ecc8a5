package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// River runs chains of four jobs that do nothing. Each job inserts the next one in the transaction that
// completes it, which is how River keeps a sequence of steps durable.
type River struct {
	URL         string
	Concurrency int          // workers; twice as many chains are under way
	Done        atomic.Int64 // chains that have ended
}

type chainLink struct {
	Step int `json:"step"`
}

func (chainLink) Kind() string { return "link" }

type linkWorker struct {
	river.WorkerDefaults[chainLink]
	peer *River
	pool *pgxpool.Pool
}

// Work ends the job's step, and begins the next one or the next chain.
func (w *linkWorker) Work(ctx context.Context, job *river.Job[chainLink]) error {
	last := job.Args.Step == steps-1
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		next := chainLink{Step: (job.Args.Step + 1) % steps}
		if _, err := river.ClientFromContext[pgx.Tx](ctx).InsertTx(ctx, tx, next, nil); err != nil {
			return err
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
	if err == nil && last {
		w.peer.Done.Add(1)
	}
	return err
}

// Run until ctx ends.
func (r *River) Run(ctx context.Context) (err error) {
	config, err := pgxpool.ParseConfig(r.URL)
	if err != nil {
		return err
	}
	config.MaxConns = int32(min(r.Concurrency, 96) + 8) //nolint:gosec // a few dozen
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	if err != nil {
		return err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate River: %w", err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &linkWorker{peer: r, pool: pool})
	client, err := river.NewClient(driver, &river.Config{
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: r.Concurrency}},
		Workers: workers, Logger: slog.New(slog.DiscardHandler),
		FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond, // its default of 100 ms bounds the rate
	})
	if err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, client.Stop(ending))
	}()
	for range 2 * r.Concurrency {
		if _, err := client.Insert(ctx, chainLink{}, nil); err != nil && ctx.Err() == nil {
			return fmt.Errorf("insert a job: %w", err)
		}
	}
	<-ctx.Done()
	return nil
}
