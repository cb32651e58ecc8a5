package scenario

import (
	"context"
	"errors"
	"time"

	"payments/bench/load"
)

// latency at a share of the capacity, by an open loop: to the outcome (`Prefer: wait`) and to the read
// model, each from the time at which the request was due.
func latency(share float64) func(context.Context, *Runner) (Values, error) {
	return func(ctx context.Context, r *Runner) (Values, error) {
		capacity, err := r.capacity(ctx)
		if err != nil {
			return nil, err
		}
		t, err := r.open(ctx, setup{poll: 5 * time.Millisecond})
		if err != nil {
			return nil, err
		}
		v, err := t.latency(ctx, share*capacity, r.short(2*time.Second, 10*time.Second), r.short(8*time.Second, 60*time.Second))
		if err != nil {
			return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
		}
		return v, t.finish(ctx)
	}
}

func (t *trial) latency(ctx context.Context, rate float64, warm, during time.Duration) (Values, error) {
	open := load.Open{Client: t.client, Watcher: t.watcher, Rate: rate, Wait: true}
	warming, stop := context.WithTimeout(ctx, warm)
	var before load.Tally
	open.Run(warming, &before)
	stop()
	loading, stop := context.WithTimeout(ctx, during)
	defer stop()
	var tally load.Tally
	ended := make(chan struct{})
	go func() { defer close(ended); open.Run(loading, &tally) }()
	v, err := t.window(ctx, during, tally.Completed.Load)
	if err != nil {
		return nil, err
	}
	<-ended
	if err := t.watcher.Settle(ctx, settle); err != nil {
		return nil, err
	}
	v["offered_per_s"] = rate
	v["shed"] = float64(tally.Shed.Load())
	quantiles(v, "outcome", &tally.Outcomes)
	quantiles(v, "answer", &tally.Answers)
	quantiles(v, "read_model", &tally.ReadModel)
	return v, errors.Join(healthy(&before), healthy(&tally))
}
