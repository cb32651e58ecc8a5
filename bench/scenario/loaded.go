package scenario

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/bench/load"
	"payments/bench/stack"
)

// seeded puts payments of earlier years into both models before the service starts. A quick run takes a
// hundredth of them.
func seeded(payments int) func(context.Context, *Runner) (Values, error) {
	return func(ctx context.Context, r *Runner) (Values, error) {
		n := strconv.Itoa(payments)
		if r.Quick {
			n = strconv.Itoa(payments / 100)
		}
		return completion(setup{before: func(ctx context.Context, i *stack.Install) error {
			_, err := i.Run(ctx, "seed", "-payments", n, "-timelines", n)
			return err
		}}, nil)(ctx, r)
	}
}

// waiting has 100,000 sagas that wait for their timers. A service without the saga role accepts their
// payments, and their timers are then set to tomorrow.
func waiting(ctx context.Context, r *Runner) (Values, error) {
	sagas := int64(100_000)
	if r.Quick {
		sagas /= 100
	}
	t, err := r.open(ctx, setup{vars: map[string]string{"PAYMENTS_ROLES": "api,relay,projector,webhooks"}})
	if err != nil {
		return nil, err
	}
	v, err := t.waiting(ctx, r, sagas)
	if err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	// Settled it will never be.
	return v, errors.Join(t.watcher.Settle(ctx, settle), t.audit(ctx), t.close(ctx))
}

func (t *trial) waiting(ctx context.Context, r *Runner, sagas int64) (Values, error) {
	var tally load.Tally
	loading, stop := context.WithTimeout(ctx, 20*time.Minute)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); load.Closed{Client: t.client, Clients: clients}.Run(loading, &tally) }()
	for tally.Accepted.Load() < sagas && loading.Err() == nil {
		if err := wait(ctx, 500*time.Millisecond); err != nil {
			return nil, err
		}
		if err := t.owner(ctx, `UPDATE sagas SET due_at = now() + interval '1 day' WHERE due_at < now() + interval '1 hour'`); err != nil {
			return nil, err
		}
	}
	stop()
	<-ended
	if n := tally.Accepted.Load(); n < sagas {
		return nil, fmt.Errorf("only %d payments were accepted in 20 minutes, and %d are to wait", n, sagas)
	}
	err := errors.Join(healthy(&tally), t.owner(ctx, `UPDATE sagas SET due_at = now() + interval '1 day' WHERE due_at < now() + interval '1 hour'`),
		t.consumed(ctx), t.StopServices(), t.owner(ctx, `ANALYZE`))
	if err != nil {
		return nil, err
	}
	if _, err := t.Serve(ctx, nil); err != nil {
		return nil, err
	}
	t.client = load.NewClient(t.Install)
	return t.complete(ctx, r, nil)
}

// held keeps a transaction with an id and a snapshot open for ten minutes under load, and measures with
// it still open.
func held(ctx context.Context, r *Runner) (Values, error) {
	t, err := r.open(ctx, setup{})
	if err != nil {
		return nil, err
	}
	v, err := t.held(ctx, r)
	if err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	return v, t.finish(ctx)
}

func (t *trial) held(ctx context.Context, r *Runner) (v Values, err error) {
	conn, err := pgx.Connect(ctx, r.running.URL("postgres", t.Database))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ; SET idle_in_transaction_session_timeout = 0; SELECT pg_current_xact_id()`)
	if err != nil {
		return nil, fmt.Errorf("hold a transaction open: %w", err)
	}
	loading, stop := context.WithTimeout(ctx, r.short(10*time.Second, 10*time.Minute))
	defer stop()
	var tally load.Tally
	load.Closed{Client: t.client, Watcher: t.watcher, Clients: clients, Window: window}.Run(loading, &tally)
	if err := errors.Join(ctx.Err(), healthy(&tally)); err != nil {
		return nil, err
	}
	return t.complete(ctx, r, nil)
}

// owner runs SQL as the superuser, whose work is not counted.
func (t *trial) owner(ctx context.Context, sql string) error { return t.database.Exec(ctx, sql) }

// projection is how fast a backlog of events reaches the read model, and how long its rebuild takes
// while the service runs.
func projection(ctx context.Context, r *Runner) (Values, error) {
	t, err := r.open(ctx, setup{vars: map[string]string{"PAYMENTS_ROLES": "api,saga,relay"}})
	if err != nil {
		return nil, err
	}
	payments := int64(5000)
	if r.Quick {
		payments /= 10
	}
	v, err := t.projection(ctx, payments)
	if err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	return v, t.finish(ctx)
}

func (t *trial) projection(ctx context.Context, payments int64) (Values, error) {
	var tally load.Tally
	for tally.Accepted.Load() < payments {
		loading, stop := context.WithTimeout(ctx, 2*time.Second)
		load.Closed{Client: t.client, Clients: 16}.Run(loading, &tally)
		stop()
		if err := errors.Join(ctx.Err(), healthy(&tally)); err != nil {
			return nil, err
		}
		if err := t.sagasEnded(ctx); err != nil {
			return nil, err
		}
	}
	events, err := t.allPublished(ctx)
	if err != nil {
		return nil, err
	}
	before, err := t.snapshot(ctx, true, tally.Accepted.Load)
	if err != nil {
		return nil, err
	}
	before.done = 0
	if _, err := t.Serve(ctx, map[string]string{"PAYMENTS_ROLES": "projector"}); err != nil {
		return nil, err
	}
	for {
		lag, groups, err := t.broker.Lag(ctx, "payment_view")
		if err != nil {
			return nil, err
		}
		if groups == 1 && lag == 0 {
			break
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
	after, err := t.snapshot(ctx, false, tally.Accepted.Load)
	if err != nil {
		return nil, err
	}
	v, err := t.cost(ctx, before, after)
	if err != nil {
		return nil, err
	}
	v["events_per_s"] = float64(events) / v["seconds"]
	began := time.Now()
	if _, err := t.Run(ctx, "replay", "payment_view"); err != nil {
		return nil, err
	}
	v["rebuild_s"], v["payments"] = time.Since(began).Seconds(), float64(tally.Accepted.Load())
	v["rebuild_per_s"] = v["payments"] / v["rebuild_s"]
	// The webhooks have had nothing yet, and the audit of what is settled asks for that, too.
	_, err = t.Serve(ctx, map[string]string{"PAYMENTS_ROLES": "webhooks"})
	return v, err
}

func (t *trial) sagasEnded(ctx context.Context) error {
	return t.until(ctx, "sagas end", func() (bool, error) {
		n, err := t.database.Unfinished(ctx)
		return n == 0, err
	})
}

func (t *trial) allPublished(ctx context.Context) (events int64, err error) {
	err = t.until(ctx, "events are published", func() (bool, error) {
		made, err := t.database.Events(ctx)
		if err != nil {
			return false, err
		}
		events, err = t.broker.Published(ctx)
		return events >= made, err
	})
	return events, err
}

func (t *trial) until(ctx context.Context, what string, holds func() (bool, error)) error {
	for deadline := time.Now().Add(settle); ; {
		ok, err := holds()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s later it is not so that all %s", settle, what)
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}
