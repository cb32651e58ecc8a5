package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"payments/internal/inbox"
)

const (
	// Under load the applier begins a batch this long after the last one, so that a
	// payment's events come together and its row is written once.
	gatherFor = 50 * time.Millisecond
	// Load is as many messages in the last loadWindow. Below it what comes is applied at
	// once: gathering would only add to the latency.
	loadWindow   = 250 * time.Millisecond
	loadMessages = 25
	// commitEvery is how often offsets are committed to Kafka. They are a hint: the sink's
	// own offset counts.
	commitEvery = time.Second
)

// applier hands what a generation's pumps have fetched to the sink, all partitions
// together.
type applier struct {
	*consumer
	generation int
	pumps      []*pump
	fetched    <-chan struct{}
	commit     func(offsets map[int]int64) error
	turned     atomic.Bool

	sent     map[int]int64 // what was committed last
	nextSend time.Time
	ended    time.Time // the last batch
	loads    []load    // in the last loadWindow
	first    int       // the pump to begin with, so that none is behind the others for ever
}

type load struct {
	at time.Time
	n  int
}

// run applies until fetching ends or a partition is another's, finishes what is in hand
// under owned, and commits the offsets.
func (a *applier) run(fetching, owned context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for fetching.Err() == nil {
		a.turned.Store(true)
		now := time.Now()
		wait := a.wait(now)
		if wait <= 0 {
			if !a.turn(fetching, owned) {
				break
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-fetching.Done():
		case <-a.fetched:
		case <-timer.C:
		}
		a.send(fetching, false)
	}
	a.send(fetching, true)
}

// wait is how long it is until the next batch, or until something else is to be done.
func (a *applier) wait(now time.Time) time.Duration {
	n, full := 0, false
	next := now.Add(fetchWait)
	for _, p := range a.pumps {
		waiting, again := p.waits(now)
		n, full = n+waiting, full || waiting >= a.MaxBatch
		if !again.IsZero() && again.Before(next) {
			next = again
		}
	}
	switch {
	case n == 0:
		return max(next.Sub(now), time.Millisecond)
	case full || n >= a.MaxBatch || !a.loaded(now):
		return 0
	}
	return a.ended.Add(gatherFor).Sub(now)
}

func (a *applier) loaded(now time.Time) bool {
	for len(a.loads) > 0 && now.Sub(a.loads[0].at) > loadWindow {
		a.loads = a.loads[1:]
	}
	sum := 0
	for _, l := range a.loads {
		sum += l.n
	}
	return sum >= loadMessages
}

// turn applies one batch; false means that the group has to be joined anew.
func (a *applier) turn(fetching, owned context.Context) bool {
	var pumps []*pump
	var batches [][]inbox.Message
	now, ready := time.Now(), 0
	for _, p := range a.pumps {
		if n, _ := p.waits(now); n > 0 {
			ready++
		}
	}
	room := a.MaxBatch
	for i := range a.pumps {
		p := a.pumps[(a.first+i)%len(a.pumps)]
		share := (room + max(ready, 1) - 1) / max(ready, 1)
		if batch := p.take(now, share); len(batch) > 0 {
			pumps, batches = append(pumps, p), append(batches, batch)
			room, ready = room-len(batch), ready-1
		}
		if room <= 0 {
			break
		}
	}
	if a.first++; len(batches) == 0 {
		return true
	}
	taken := a.safely(owned, batches)
	now = time.Now()
	sum, fenced := 0, error(nil)
	for i, p := range pumps {
		p.gave(fetching, now, taken[i])
		sum += taken[i].N
		if errors.Is(taken[i].Err, inbox.ErrFenced) {
			fenced = taken[i].Err
		}
	}
	a.ended, a.loads = now, append(a.loads, load{now, sum})
	a.send(fetching, false)
	if fenced != nil && fetching.Err() == nil {
		a.Log.WarnContext(fetching, "partition is another's, joining the group anew", "generation", a.generation, "error", fenced)
		sleep(fetching, joinBackoff)
	}
	return fenced == nil
}

// send commits what was taken in to the group, once in a while and at the end.
func (a *applier) send(ctx context.Context, now bool) {
	if !now && time.Now().Before(a.nextSend) {
		return
	}
	a.nextSend = time.Now().Add(commitEvery)
	offsets := map[int]int64{}
	for _, p := range a.pumps {
		p.mu.Lock()
		if p.taken >= 0 && a.sent[p.partition] != p.taken {
			offsets[p.partition] = p.taken
		}
		p.mu.Unlock()
	}
	if len(offsets) == 0 {
		return
	}
	if err := a.commit(offsets); err != nil {
		a.Log.WarnContext(ctx, "offsets not committed to the group", "partitions", len(offsets), "error", err)
		return
	}
	maps.Copy(a.sent, offsets)
}

func (a *applier) safely(ctx context.Context, batches [][]inbox.Message) (taken []inbox.Taken) {
	var all []inbox.Message
	for _, batch := range batches {
		all = append(all, batch...)
	}
	var err error
	ctx, end := a.client.span(ctx, "process", a.Topic, trace.SpanKindConsumer, len(all),
		func(i int) string { return all[i].Headers[headerTrace] },
		attribute.String("messaging.consumer.group.name", a.Group))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			taken = make([]inbox.Taken, len(batches))
			for i := range taken {
				taken[i].Err = err
			}
		}
		end(err)
	}()
	taken = a.sink.ApplyAll(ctx, a.generation, batches)
	for _, t := range taken {
		err = errors.Join(err, t.Err)
	}
	return taken
}
