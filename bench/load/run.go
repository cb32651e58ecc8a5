package load

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"payments/bench/meter"
)

// Tally is what a load has done so far.
type Tally struct {
	Accepted  atomic.Int64 // answered with 2xx
	Completed atomic.Int64 // seen as succeeded in the read model
	Failed    atomic.Int64 // seen there with another final status
	Shed      atomic.Int64 // answered 503 or 429

	Answers   meter.Latencies // of accepted payments that were not waited for
	Outcomes  meter.Latencies // of payments whose outcome was waited for
	ReadModel meter.Latencies // until they were seen in the read model

	mu  sync.Mutex
	err error
}

// Err is the first request that went wrong.
func (t *Tally) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *Tally) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// Closed is a closed loop. Each of Clients posts its next payment when the last was answered and fewer
// than Window payments are unfinished; without a Window it does not wait for them.
type Closed struct {
	Client  *Client
	Watcher *Watcher // nil: completion is not watched
	Clients int
	Window  int
	Pick    func() int // the merchant of the next payment; nil: the first
}

// Run until ctx ends. Requests under way are let finish.
func (c Closed) Run(ctx context.Context, t *Tally) {
	var slots chan struct{}
	if c.Window > 0 {
		slots = make(chan struct{}, c.Window)
	}
	var wg sync.WaitGroup
	for range c.Clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				if slots != nil {
					select {
					case slots <- struct{}{}:
					case <-ctx.Done():
						return
					}
				}
				c.pay(ctx, t, func() {
					if slots != nil {
						<-slots
					}
				})
			}
		})
	}
	wg.Wait()
}

func (c Closed) pay(ctx context.Context, t *Tally, release func()) {
	merchant := 0
	if c.Pick != nil {
		merchant = c.Pick()
	}
	began := time.Now()
	a, err := c.Client.Pay(context.WithoutCancel(ctx), merchant, false)
	switch {
	case err != nil:
		t.fail(err)
		release()
		pause(ctx, 100*time.Millisecond)
	case a.Shed():
		t.Shed.Add(1)
		release()
		pause(ctx, max(a.RetryAfter, 50*time.Millisecond))
	default:
		t.Accepted.Add(1)
		t.Answers.Add(time.Since(began))
		if c.Watcher == nil {
			release()
			return
		}
		c.Watcher.Watch(a.Merchant, a.ID, func(at time.Time, status string) {
			t.finish(status)
			t.ReadModel.Add(at.Sub(began))
			release()
		})
	}
}

func (t *Tally) finish(status string) {
	if status == "succeeded" {
		t.Completed.Add(1)
	} else {
		t.Failed.Add(1)
	}
}

// Ended counts a payment whose last status was seen; it is a callback of Watcher.Watch.
func (t *Tally) Ended(_ time.Time, status string) { t.finish(status) }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Open is an open loop: requests are due at random times (a Poisson process) of the given mean rate.
// Every second one waits for its outcome if Wait is set.
type Open struct {
	Client  *Client
	Watcher *Watcher // nil: completion is not watched
	Rate    float64
	Wait    bool
	Pick    func() int
}

// Run until ctx ends, and lets requests under way finish.
func (o Open) Run(ctx context.Context, t *Tally) {
	var wg sync.WaitGroup
	source := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // arrivals are no secret, and are to be the same in every run
	due := time.Now()
	for n := 0; ; n++ {
		due = due.Add(time.Duration(source.ExpFloat64() * float64(time.Second) / o.Rate))
		pause(ctx, time.Until(due))
		if ctx.Err() != nil {
			break
		}
		at := due // the variable moves on
		wg.Go(func() { o.pay(ctx, t, at, o.Wait && n%2 == 0) })
	}
	wg.Wait()
}

func (o Open) pay(ctx context.Context, t *Tally, due time.Time, wait bool) {
	merchant := 0
	if o.Pick != nil {
		merchant = o.Pick()
	}
	a, err := o.Client.Pay(context.WithoutCancel(ctx), merchant, wait)
	if err != nil {
		t.fail(err)
		return
	}
	if a.Shed() {
		t.Shed.Add(1)
		return
	}
	t.Accepted.Add(1)
	answered := time.Since(due)
	if wait {
		t.Outcomes.Add(answered)
	} else {
		t.Answers.Add(answered)
	}
	if o.Watcher == nil {
		return
	}
	o.Watcher.Watch(a.Merchant, a.ID, func(at time.Time, status string) {
		t.finish(status)
		if !wait { // the watch of the others begins too late
			t.ReadModel.Add(at.Sub(due))
		}
	})
}
