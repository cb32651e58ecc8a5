package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"payments/internal/devstack"

	"payments/bench/meter"
	"payments/bench/peer"
)

// sweep is the concurrency among which a peer's best is looked for.
var sweep = []int{8, 16, 32, 64}

// dbos measures workflows a second at the concurrency that was best in a sweep.
func dbos(work peer.Work) func(context.Context, *Runner) (Values, error) {
	name := "dbos"
	if work != nil {
		name = "dbos-rows"
	}
	start := func(concurrency int) startPeer {
		return func(_ context.Context, url string) (func(context.Context) error, *atomic.Int64, error) {
			d := &peer.DBOS{URL: url, Concurrency: concurrency, Work: work}
			return d.Run, &d.Done, nil
		}
	}
	return func(ctx context.Context, r *Runner) (Values, error) {
		best, err := r.best(ctx, name, start)
		if err != nil {
			return nil, err
		}
		v, err := r.peer(ctx, start(best), r.short(500*time.Millisecond, 5*time.Second), r.short(6*time.Second, 30*time.Second))
		if err == nil {
			v["concurrency"] = float64(best)
		}
		return v, err
	}
}

// startPeer prepares a fresh database and gives what runs until its context ends, and its counter.
type startPeer func(ctx context.Context, ownerURL string) (run func(context.Context) error, done *atomic.Int64, err error)

// best concurrency of a peer. The sweep is a result of its own, so that it is made once.
func (r *Runner) best(ctx context.Context, name string, start func(concurrency int) startPeer) (int, error) {
	have, err := r.results.load("sweep", name, 1)
	if err != nil {
		return 0, err
	}
	if have == nil {
		have = &Result{Scenario: "sweep", Contender: name, Round: 1, StartedAt: time.Now().UTC(), LoadAverage: loadAverage(), Environment: r.environment, Values: Values{}}
		for _, concurrency := range sweep {
			v, err := r.peer(ctx, start(concurrency), 500*time.Millisecond, r.short(1500*time.Millisecond, 10*time.Second))
			if err != nil {
				return 0, fmt.Errorf("at a concurrency of %d: %w", concurrency, err)
			}
			have.Values[strconv.Itoa(concurrency)] = v["per_s"]
			fmt.Fprintf(r.Out, "          %s at a concurrency of %d: %.0f/s\n", name, concurrency, v["per_s"])
		}
		if err := r.results.save(*have); err != nil {
			return 0, err
		}
	}
	rates := have.Values
	best := slices.MaxFunc(slices.Sorted(maps.Keys(rates)), func(a, b string) int { return int(rates[a]) - int(rates[b]) })
	return strconv.Atoi(best)
}

// peer measures what a peer does in this process and in Postgres.
func (r *Runner) peer(ctx context.Context, start startPeer, warm, during time.Duration) (v Values, err error) {
	base, err := r.stack(ctx)
	if err != nil {
		return nil, err
	}
	name, err := base.Database(ctx)
	if err != nil {
		return nil, err
	}
	run, done, err := start(ctx, base.URL(devstack.OwnerRole, name))
	if err != nil {
		return nil, err
	}
	database, err := meter.OpenDatabase(ctx, base.URL("postgres", name))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, database.Close(context.WithoutCancel(ctx))) }()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	if err := wait(ctx, warm); err != nil {
		return nil, err
	}
	before, err := r.peerSnapshot(ctx, database, true, done)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, during); err != nil {
		return nil, err
	}
	after, err := r.peerSnapshot(ctx, database, false, done)
	if err != nil {
		return nil, err
	}
	log, err := database.ReadLog(ctx, before.counts.LSN, after.counts.LSN)
	if err != nil {
		return nil, err
	}
	return costs(after.at.Sub(before.at), after.done-before.done, after.cpu.Sub(before.cpu), after.counts.Sub(before.counts), log), nil
}

func (r *Runner) peerSnapshot(ctx context.Context, database *meter.Database, opening bool, done *atomic.Int64) (s snapshot, err error) {
	pids, err := r.running.PIDs()
	if err != nil {
		return s, err
	}
	if opening {
		if s.counts, err = database.Counts(ctx); err != nil {
			return s, err
		}
	}
	s.at, s.done = time.Now(), done.Load()
	if s.cpu, err = meter.ReadCPU(map[string]int{"postgres": pids["postgres"]}); err != nil {
		return s, err
	}
	if s.cpu["service"], err = meter.Self(); err != nil {
		return s, err
	}
	if !opening {
		s.counts, err = database.Counts(ctx)
	}
	return s, err
}
