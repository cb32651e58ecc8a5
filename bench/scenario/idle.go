package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"payments/bench/meter"
)

// idle is what a service takes that has nothing to do, and how long the outcome of one payment takes
// on it.
func idle(ctx context.Context, r *Runner) (Values, error) {
	t, err := r.open(ctx, setup{})
	if err != nil {
		return nil, err
	}
	v, err := t.idle(ctx, r)
	if err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	return v, t.finish(ctx)
}

func (t *trial) idle(ctx context.Context, r *Runner) (Values, error) {
	var took meter.Latencies
	for n := range 20 {
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
		began := time.Now()
		a, err := t.client.Pay(ctx, 0, true)
		if err != nil {
			return nil, err
		}
		if !a.Succeeded {
			return nil, fmt.Errorf("payment %s was answered %d and has not succeeded", a.ID, a.Status)
		}
		if n > 2 { // the first ones connect
			took.Add(time.Since(began))
		}
	}
	if err := t.consumed(ctx); err != nil {
		return nil, err
	}
	if err := wait(ctx, 2*time.Second); err != nil {
		return nil, err
	}
	var nothing int64
	before, err := t.snapshot(ctx, true, func() int64 { return nothing })
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, r.short(8*time.Second, 60*time.Second)); err != nil {
		return nil, err
	}
	after, err := t.snapshot(ctx, false, func() int64 { return nothing })
	if err != nil {
		return nil, err
	}
	v, err := t.cost(ctx, before, after)
	if err != nil {
		return nil, err
	}
	seconds := after.at.Sub(before.at).Seconds()
	v["core_both"] = v["core_service"] + v["core_postgres"]
	v["statements_per_s"] = float64(after.counts.Statements-before.counts.Statements) / seconds
	quantiles(v, "outcome", &took)
	return v, nil
}
