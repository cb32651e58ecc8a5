package simulator

import (
	"context"
	"sync"
	"time"
)

// delays are the requests that wait inside the simulator: those held without
// an answer, those that take long, and those that are applied after their
// client has given up.
type delays struct {
	clock   Clock
	closing chan struct{}

	mu      sync.Mutex
	closed  bool
	pending map[*pendingCall]struct{}
	running sync.WaitGroup
}

type pendingCall struct{ stop func() bool }

func newDelays(clock Clock) *delays {
	return &delays{clock: clock, closing: make(chan struct{}), pending: map[*pendingCall]struct{}{}}
}

// later calls f after d, unless close comes first: then f is not called.
func (ds *delays) later(d time.Duration, f func()) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.closed {
		return
	}
	call := &pendingCall{}
	ds.pending[call] = struct{}{}
	call.stop = ds.clock.AfterFunc(d, func() {
		if ds.take(call) {
			defer ds.running.Done()
			f()
		}
	})
}

func (ds *delays) take(call *pendingCall) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if _, ok := ds.pending[call]; !ok {
		return false
	}
	delete(ds.pending, call)
	ds.running.Add(1)
	return true
}

// wait returns early when ctx or the simulator ends, and false when it is the
// simulator.
func (ds *delays) wait(ctx context.Context, d time.Duration) bool {
	passed := make(chan struct{})
	stop := ds.clock.AfterFunc(d, func() { close(passed) })
	defer stop()
	select {
	case <-passed:
	case <-ctx.Done():
	case <-ds.closing:
		return false
	}
	return true
}

// close drops what has not begun and waits for what has.
func (ds *delays) close() {
	ds.mu.Lock()
	if !ds.closed {
		ds.closed = true
		close(ds.closing)
	}
	for call := range ds.pending {
		call.stop()
		delete(ds.pending, call)
	}
	ds.mu.Unlock()
	ds.running.Wait()
}
