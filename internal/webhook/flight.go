package webhook

import (
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	// slowAfter is how long an endpoint may take before it counts as slow.
	slowAfter = time.Second
	// maxSlow endpoints are remembered. What is forgotten counts as quick until it is slow again.
	maxSlow = 10_000
)

// flight is what a dispatcher has under way, and which endpoints were slow in their last attempts.
type flight struct {
	now func() time.Time

	mu       sync.Mutex
	attempts map[*underway]struct{}
	paces    *lru.Cache[string, time.Duration] // of slow endpoints, each longer than slowAfter
}

// underway is one attempt.
type underway struct {
	merchantID, endpointID string
	since                  time.Time
}

func newFlight(now func() time.Time) (*flight, error) {
	paces, err := lru.New[string, time.Duration](maxSlow)
	if err != nil {
		return nil, fmt.Errorf("remember slow endpoints: %w", err)
	}
	return &flight{now: now, attempts: map[*underway]struct{}{}, paces: paces}, nil
}

// begin counts an attempt until end is called.
func (f *flight) begin(c claimed) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &underway{c.merchantID, c.endpointID, f.now()}
	f.attempts[a] = struct{}{}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.attempts, a)
		// The pace of a slow endpoint is halfway between its pace before and its last attempt:
		// after a single slip it is quick again at once, after a long outage within few attempts.
		pace := f.now().Sub(a.since)
		if before, ok := f.paces.Get(a.endpointID); ok {
			pace = (pace + before) / 2
		}
		if pace > slowAfter {
			f.paces.Add(a.endpointID, pace)
		} else {
			f.paces.Remove(a.endpointID)
		}
	}
}

// use is what is in flight by now. An endpoint is slow when its last attempts were, or when one
// has been under way for that long.
func (f *flight) use(slots int) *use {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &use{slots: slots, byMerchant: map[string]int{}, byEndpoint: map[string]int{}, slow: map[string]bool{}, slowByMerchant: map[string]int{}}
	for _, id := range f.paces.Keys() {
		u.slow[id] = true
	}
	for a := range f.attempts {
		if f.now().Sub(a.since) > slowAfter {
			u.slow[a.endpointID] = true
		}
	}
	for a := range f.attempts {
		u.take(a.merchantID, a.endpointID)
	}
	return u
}
