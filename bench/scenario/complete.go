package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"payments/bench/load"
)

// clients of a closed loop, and how many of their payments may be unfinished. More of either did not
// raise the rate (docs/performance.md).
const (
	clients = 64
	window  = 256
)

// completion is payments from POST to read model, as many a second as the service can do without a lag
// that grows: a closed loop holds the number of unfinished payments at the window.
func completion(s setup, pick func(merchants int) func() int) func(context.Context, *Runner) (Values, error) {
	return func(ctx context.Context, r *Runner) (Values, error) {
		t, err := r.open(ctx, s)
		if err != nil {
			return nil, err
		}
		v, err := t.complete(ctx, r, pick)
		if err != nil {
			return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
		}
		return v, t.finish(ctx)
	}
}

func (t *trial) complete(ctx context.Context, r *Runner, pick func(merchants int) func() int) (Values, error) {
	return t.completeWithin(ctx, pick, r.short(2*time.Second, 15*time.Second), r.short(20*time.Second, 60*time.Second))
}

func (t *trial) completeWithin(ctx context.Context, pick func(merchants int) func() int, warm, during time.Duration) (Values, error) {
	var tally load.Tally
	closed := load.Closed{Client: t.client, Watcher: t.watcher, Clients: clients, Window: window}
	if pick != nil {
		closed.Pick = pick(len(t.Merchants))
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); closed.Run(loading, &tally) }()
	if err := wait(ctx, warm); err != nil {
		return nil, err
	}
	lagBefore, _, err := t.broker.Lag(ctx, "")
	if err != nil {
		return nil, err
	}
	v, err := t.window(ctx, during, tally.Completed.Load)
	if err != nil {
		return nil, err
	}
	stop()
	<-ended
	quantiles(v, "read_model", &tally.ReadModel)
	quantiles(v, "answer", &tally.Answers)
	v["shed"] = float64(tally.Shed.Load())
	if v["done"] == 0 {
		return nil, errors.Join(errors.New("no payment was completed in the measured time"), healthy(&tally))
	}
	// A payment makes some five events, and each has two consumers.
	if grown := v["lag_events"] - float64(lagBefore); grown > 10*max(v["done"]/10, window) {
		return nil, fmt.Errorf("the consumers' lag grew by %.0f events during the window: the rate does not last", grown)
	}
	return v, healthy(&tally)
}

// capacity is the median rate of (b) so far, which other scenarios take parts and multiples of.
func (r *Runner) capacity(ctx context.Context) (float64, error) {
	rounds, err := r.results.rounds("complete", "ours", r.Rounds)
	if err != nil {
		return 0, err
	}
	if rate, _, _, ok := spread(rounds, "per_s"); ok {
		return rate, nil
	}
	v, err := completion(setup{}, nil)(ctx, r)
	if err != nil {
		return 0, err
	}
	return v["per_s"], r.results.save(Result{
		Scenario: "complete", Contender: "ours", Round: 1, StartedAt: time.Now().UTC(), LoadAverage: loadAverage(), Environment: r.environment, Values: v,
	})
}

// endurance is complete for an hour: whether the memory and the rate of its last minutes are those of
// its first ones.
func endurance(ctx context.Context, r *Runner) (Values, error) {
	t, err := r.open(ctx, setup{})
	if err != nil {
		return nil, err
	}
	v, err := t.endurance(ctx, r)
	if err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	return v, t.finish(ctx)
}

func (t *trial) endurance(ctx context.Context, r *Runner) (Values, error) {
	var tally load.Tally
	loading, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		load.Closed{Client: t.client, Watcher: t.watcher, Clients: clients, Window: window}.Run(loading, &tally)
	}()
	if err := wait(ctx, r.short(5*time.Second, 5*time.Minute)); err != nil {
		return nil, err
	}
	first, err := t.window(ctx, r.short(5*time.Second, 5*time.Minute), tally.Completed.Load)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, r.short(5*time.Second, 45*time.Minute)); err != nil {
		return nil, err
	}
	v, err := t.window(ctx, r.short(5*time.Second, 5*time.Minute), tally.Completed.Load)
	if err != nil {
		return nil, err
	}
	stop()
	<-ended
	v["first_per_s"], v["first_memory_mib"] = first["per_s"], first["memory_now_mib"]
	return v, healthy(&tally)
}
