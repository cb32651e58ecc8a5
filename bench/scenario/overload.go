package scenario

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"payments/bench/load"
	"payments/bench/meter"
)

// overload offers three times the capacity, and asks 5 s after it whether latency is normal again.
func overload(ctx context.Context, r *Runner) (Values, error) {
	capacity, err := r.capacity(ctx)
	if err != nil {
		return nil, err
	}
	t, err := r.open(ctx, setup{})
	if err != nil {
		return nil, err
	}
	v, err := t.overload(ctx, r, capacity)
	if err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	return v, t.finish(ctx)
}

func (t *trial) overload(ctx context.Context, r *Runner, capacity float64) (Values, error) {
	const recovery = 5 * time.Second
	during := r.short(8*time.Second, 30*time.Second)
	loading, stop := context.WithTimeout(ctx, 2*time.Second+during)
	defer stop()
	var tally load.Tally
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		load.Open{Client: t.client, Watcher: t.watcher, Rate: 3 * capacity}.Run(loading, &tally)
	}()
	if err := wait(ctx, 2*time.Second); err != nil {
		return nil, err
	}
	accepted := tally.Accepted.Load()
	v, err := t.window(ctx, during, tally.Completed.Load)
	if err != nil {
		return nil, err
	}
	v["accepted_per_s"] = float64(tally.Accepted.Load()-accepted) / v["seconds"]
	<-ended
	v["offered_per_s"], v["shed"] = 3*capacity, float64(tally.Shed.Load())
	v["of_capacity"] = v["per_s"] / capacity * 100
	if v["accepted_per_s"] > 0 {
		v["of_accepted"] = v["per_s"] / v["accepted_per_s"] * 100
	}
	quantiles(v, "answer", &tally.Answers)
	if err := wait(ctx, recovery); err != nil {
		return nil, err
	}
	after, stop := context.WithTimeout(ctx, r.short(5*time.Second, 20*time.Second))
	defer stop()
	var later load.Tally
	load.Open{Client: t.client, Watcher: t.watcher, Rate: capacity / 2, Wait: true}.Run(after, &later)
	quantiles(v, "outcome", &later.Outcomes)
	return v, errors.Join(healthy(&tally), healthy(&later))
}

// flood is a merchant that offers three times the capacity beside another that makes a payment now and
// then, whose latency is what counts.
func flood(ctx context.Context, r *Runner) (Values, error) {
	capacity, err := r.capacity(ctx)
	if err != nil {
		return nil, err
	}
	t, err := r.open(ctx, setup{merchants: 2, poll: 20 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	v, err := t.flood(ctx, r, capacity)
	if err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	return v, t.finish(ctx)
}

func (t *trial) flood(ctx context.Context, r *Runner, capacity float64) (Values, error) {
	during := r.short(10*time.Second, 60*time.Second)
	loading, stop := context.WithTimeout(ctx, 3*time.Second+during)
	defer stop()
	var flooding, other load.Tally
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		load.Open{Client: t.client, Watcher: t.watcher, Rate: 3 * capacity}.Run(loading, &flooding)
	}()
	if err := wait(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		load.Open{Client: t.client, Watcher: t.watcher, Rate: 5, Wait: true, Pick: func() int { return 1 }}.Run(loading, &other)
	}()
	v, err := t.window(ctx, during, func() int64 { return flooding.Completed.Load() + other.Completed.Load() })
	if err != nil {
		return nil, err
	}
	<-ended
	<-measured
	v["offered_per_s"] = 3 * capacity
	v["shed"] = float64(flooding.Shed.Load() + other.Shed.Load())
	v["other_shed"] = float64(other.Shed.Load())
	quantiles(v, "outcome", &other.Outcomes)
	quantiles(v, "answer", &other.Answers)
	if err := t.watcher.Settle(ctx, settle); err != nil {
		return nil, err
	}
	quantiles(v, "read_model", &other.ReadModel)
	return v, errors.Join(healthy(&flooding), healthy(&other))
}

// uneven picks merchant n about 1/n times as often as the first.
func uneven(merchants int) func() int {
	weights := make([]float64, merchants)
	sum := 0.0
	for n := range weights {
		sum += 1 / float64(n+1)
		weights[n] = sum
	}
	return func() int {
		at := rand.Float64() * sum //nolint:gosec // which merchant pays is no secret
		for n, w := range weights {
			if at < w {
				return n
			}
		}
		return merchants - 1
	}
}

// replay is requests that repeat an idempotency key: the same answer, and nothing made.
func replay(ctx context.Context, r *Runner) (Values, error) {
	t, err := r.open(ctx, setup{})
	if err != nil {
		return nil, err
	}
	v, err := t.replay(ctx, r)
	if err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	return v, t.finish(ctx)
}

func (t *trial) replay(ctx context.Context, r *Runner) (Values, error) {
	const keys = 200
	var made load.Tally
	for n := range int64(keys) {
		a, err := t.client.PayAgain(ctx, 0, n, false)
		if err != nil {
			return nil, err
		}
		t.watcher.Watch(a.Merchant, a.ID, made.Ended)
	}
	if err := t.watcher.Settle(ctx, settle); err != nil {
		return nil, err
	}
	var took meter.Latencies
	v, err := t.ask(ctx, r, 64, &took, func(ctx context.Context) error {
		a, err := t.client.PayAgain(ctx, 0, rand.Int64N(keys), false) //nolint:gosec // which key is no secret
		if err == nil && !a.Accepted() {
			err = errors.New("a replay was not answered as the first request was")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, healthy(&made)
}

// ask repeats a request by so many clients at once, and measures the rate and the latency.
func (t *trial) ask(ctx context.Context, r *Runner, clients int, took *meter.Latencies, request func(context.Context) error) (Values, error) {
	asking, stop := context.WithCancel(ctx)
	failed := make(chan error, clients)
	for range clients {
		go func() {
			for asking.Err() == nil {
				began := time.Now()
				if err := request(ctx); err != nil {
					failed <- err
					return
				}
				took.Add(time.Since(began))
			}
			failed <- nil
		}()
	}
	err := wait(ctx, r.short(time.Second, 3*time.Second))
	var v Values
	if err == nil {
		v, err = t.window(ctx, r.short(5*time.Second, 20*time.Second), func() int64 { return int64(took.Count()) })
	}
	stop()
	for range clients {
		err = errors.Join(err, <-failed)
	}
	if err == nil {
		quantiles(v, "answer", took)
	}
	return v, err
}

// reads are GETs of single payments or of a merchant's newest page, beside nothing else.
func reads(list bool) func(context.Context, *Runner) (Values, error) {
	return func(ctx context.Context, r *Runner) (Values, error) {
		t, err := r.open(ctx, setup{})
		if err != nil {
			return nil, err
		}
		v, err := t.reads(ctx, r, list)
		if err != nil {
			return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
		}
		return v, t.finish(ctx)
	}
}

func (t *trial) reads(ctx context.Context, r *Runner, list bool) (Values, error) {
	var made load.Tally
	var ids []string
	for range 200 {
		a, err := t.client.Pay(ctx, 0, false)
		if err != nil {
			return nil, err
		}
		ids = append(ids, a.ID)
		t.watcher.Watch(a.Merchant, a.ID, made.Ended)
	}
	if err := t.watcher.Settle(ctx, settle); err != nil {
		return nil, err
	}
	var took meter.Latencies
	return t.ask(ctx, r, 16, &took, func(ctx context.Context) error {
		path := "/v1/payments/" + ids[rand.IntN(len(ids))] //nolint:gosec // which payment is no secret
		if list {
			path = "/v1/payments?limit=20"
		}
		return t.client.Get(ctx, 0, path)
	})
}
