package meter

import (
	"slices"
	"sync"
	"time"
)

// Latencies are collected by many goroutines. Every value is kept, so that quantiles are exact.
type Latencies struct {
	mu   sync.Mutex
	took []time.Duration
}

// Add one measured duration.
func (l *Latencies) Add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, d)
}

// Quantiles of what was added so far, each q from 0 to 1. Without any value they are 0.
func (l *Latencies) Quantiles(qs ...float64) []time.Duration {
	l.mu.Lock()
	took := slices.Clone(l.took)
	l.mu.Unlock()
	slices.Sort(took)
	at := make([]time.Duration, len(qs))
	for i, q := range qs {
		if len(took) > 0 {
			at[i] = took[min(int(q*float64(len(took))), len(took)-1)]
		}
	}
	return at
}

// Count of what was added so far.
func (l *Latencies) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.took)
}
