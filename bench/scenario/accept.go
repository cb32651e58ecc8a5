package scenario

import (
	"context"
	"errors"
	"time"

	"payments/bench/load"
)

// accept is how many payments a second are accepted by so many clients that wait for nothing else, and
// how many are completed meanwhile.
func accept(clients int) func(context.Context, *Runner) (Values, error) {
	return func(ctx context.Context, r *Runner) (Values, error) {
		t, err := r.open(ctx, setup{})
		if err != nil {
			return nil, err
		}
		v, err := t.accept(ctx, r, clients)
		if err != nil {
			return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
		}
		if r.Quick { // what was accepted need not be carried out: the audit is right under way, too
			return v, errors.Join(t.audit(ctx), t.close(ctx))
		}
		return v, t.finish(ctx)
	}
}

func (t *trial) accept(ctx context.Context, r *Runner, clients int) (Values, error) {
	var tally load.Tally
	loading, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		load.Closed{Client: t.client, Watcher: t.watcher, Clients: clients}.Run(loading, &tally)
	}()
	if err := wait(ctx, r.short(time.Second, 3*time.Second)); err != nil {
		return nil, err
	}
	began, completed := time.Now(), tally.Completed.Load()
	v, err := t.window(ctx, r.short(3*time.Second, 15*time.Second), tally.Accepted.Load)
	if err != nil {
		return nil, err
	}
	v["completed_per_s"] = float64(tally.Completed.Load()-completed) / time.Since(began).Seconds()
	stop()
	<-ended
	quantiles(v, "answer", &tally.Answers)
	v["shed"] = float64(tally.Shed.Load())
	delete(v, "cpu_sum") // completions of other payments are in the cost: it is no one payment's
	return v, healthy(&tally)
}
