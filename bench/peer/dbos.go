package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5/pgxpool"
)

// steps of a workflow: as many as the order saga has.
const steps = 4

// DBOS runs DBOS Transact workflows of four steps, concurrency of them at once, until ctx ends. Without
// work a step does nothing; with it each step is a transaction that also holds DBOS' own record.
type DBOS struct {
	URL         string
	Concurrency int
	Work        Work
	Done        atomic.Int64 // workflows that have ended
}

// Exec runs a statement in the transaction at hand.
type Exec func(ctx context.Context, sql string, args ...any) error

// Work is what step n of a workflow writes in its transaction; nil: nothing.
type Work func(ctx context.Context, exec Exec, workflow string, n int) error

// Run until ctx ends, and lets workflows under way finish.
func (d *DBOS) Run(ctx context.Context) (err error) {
	c, err := pgxpool.ParseConfig(d.URL)
	if err != nil {
		return err
	}
	c.MaxConns = int32(min(d.Concurrency, 96) + 4) //nolint:gosec // a few dozen
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), c)
	if err != nil {
		return err
	}
	defer pool.Close()
	running, err := dbos.NewContext(context.WithoutCancel(ctx), dbos.Config{AppName: "bench", SystemDBPool: pool, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("start DBOS: %w", err)
	}
	var source *dbos.DataSource
	if d.Work != nil {
		if source, err = dbos.NewDataSource(running, pool); err != nil {
			return fmt.Errorf("start DBOS: %w", err)
		}
	}
	flow := func(ctx dbos.Context, _ string) (string, error) { return d.flow(ctx, source) }
	dbos.RegisterWorkflow(running, flow)
	if err := dbos.Launch(running); err != nil {
		return fmt.Errorf("start DBOS: %w", err)
	}
	defer func() { err = errors.Join(err, dbos.Shutdown(running, 10*time.Second)) }()
	var wg sync.WaitGroup
	failed := make(chan error, d.Concurrency)
	for range d.Concurrency {
		wg.Go(func() {
			for ctx.Err() == nil {
				handle, err := dbos.RunWorkflow(running, flow, "")
				if err == nil {
					_, err = handle.GetResult()
				}
				if err != nil {
					failed <- fmt.Errorf("run a workflow: %w", err)
					return
				}
				d.Done.Add(1)
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (d *DBOS) flow(ctx dbos.Context, source *dbos.DataSource) (string, error) {
	id, err := dbos.GetWorkflowID(ctx)
	if err != nil {
		return "", err
	}
	for n := range steps {
		if source == nil {
			_, err = dbos.RunAsStep(ctx, func(context.Context) (string, error) { return "", nil })
		} else {
			_, err = dbos.RunAsTransaction(ctx, source, func(ctx context.Context, tx dbos.Tx) (string, error) {
				exec := func(ctx context.Context, sql string, args ...any) error {
					_, err := tx.Exec(ctx, sql, args...)
					return err
				}
				return "", d.Work(ctx, exec, id, n)
			})
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}
