// Package await lets many requests wait for rows to change, at the cost of one query for all of
// them: a look. Whoever changes such rows in this process wakes the group after the commit, and the
// group looks. Changes of other processes are found by a look at a fixed interval. While nobody
// waits, nothing runs.
//
// It knows no database. It imports the standard library only.
package await

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// lookTimeout bounds one look.
	lookTimeout = 2 * time.Second
	// A look that fails is repeated. If none succeeds for this long, every waiter gets the error.
	patience = 15 * time.Second
	// The group looks for a share of the time at most: a fifth after wakes, and a twentieth without
	// them. Where looks are slow it rests no longer than longestRest all the same.
	restWoken, restAlone = 4, 19
	longestRest          = 250 * time.Millisecond
)

// Group is of those who wait for values by key. It is safe for concurrent use.
type Group[K comparable, V any] struct {
	every time.Duration
	look  func(ctx context.Context, keys []K) (map[K]V, error)

	mu      sync.Mutex
	waiting map[K][]*waiter[V]
	running bool
	wake    chan struct{}
}

type waiter[V any] struct {
	done func(V) bool
	came chan result[V] // holds one
}

type result[V any] struct {
	value V
	err   error
}

// New makes a group. look reads the values of the keys that are there; a key that it leaves out is
// waited for further. One goroutine calls it, after each interval while somebody waits and after a
// Wake. Its context ends within 2 s, and has no values of a waiter's context.
func New[K comparable, V any](every time.Duration, look func(ctx context.Context, keys []K) (map[K]V, error)) *Group[K, V] {
	return &Group[K, V]{every: every, look: look, waiting: map[K][]*waiter[V]{}, wake: make(chan struct{}, 1)}
}

// Wait until done accepts the key's value, and return that value. The first look comes after the
// interval, or after a Wake. Errors: ctx's, or that of the looks if they fail for 15 s.
func (g *Group[K, V]) Wait(ctx context.Context, key K, done func(V) bool) (V, error) {
	w := &waiter[V]{done: done, came: make(chan result[V], 1)}
	g.mu.Lock()
	g.waiting[key] = append(g.waiting[key], w)
	if !g.running {
		g.running = true
		go g.run(context.Background()) //nolint:forbidigo,gosec // looks for all, so that no waiter's tenant or trace is its own
	}
	g.mu.Unlock()
	select {
	case r := <-w.came:
		return r.value, r.err
	case <-ctx.Done():
		g.leave(key, w)
		var none V
		return none, ctx.Err()
	}
}

// Wake hints that values have changed. It may be called often: what comes during a look, and in the
// rest after it, makes one look together.
func (g *Group[K, V]) Wake() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *Group[K, V]) leave(key K, w *waiter[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keep(key, slices.DeleteFunc(g.waiting[key], func(other *waiter[V]) bool { return other == w }))
	if len(g.waiting) == 0 {
		g.Wake() // it ends
	}
}

// keep is called with the lock held.
func (g *Group[K, V]) keep(key K, left []*waiter[V]) {
	if len(left) == 0 {
		delete(g.waiting, key)
		return
	}
	g.waiting[key] = left
}

// run looks until nobody waits.
func (g *Group[K, V]) run(ctx context.Context) {
	due := time.NewTimer(g.every)
	defer due.Stop()
	rested, good := time.Now(), time.Now()
	for g.goesOn() {
		select {
		case <-due.C:
		case <-g.wake:
			time.Sleep(time.Until(rested))
		}
		var took time.Duration
		if keys := g.keys(); len(keys) > 0 {
			began := time.Now()
			looking, cancel := context.WithTimeout(ctx, lookTimeout)
			values, err := g.look(looking, keys)
			cancel()
			if err == nil {
				good = time.Now()
			}
			if time.Since(good) < patience {
				g.tell(keys, values)
			} else {
				g.fail(keys, err)
			}
			took = time.Since(began)
		}
		rested = time.Now().Add(min(restWoken*took, longestRest))
		due.Reset(max(g.every, min(restAlone*took, longestRest)))
	}
}

func (g *Group[K, V]) goesOn() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = len(g.waiting) > 0
	return g.running
}

func (g *Group[K, V]) keys() []K {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.waiting))
}

// tell who waits for one of the keys what was read.
func (g *Group[K, V]) tell(keys []K, values map[K]V) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys {
		v, known := values[k]
		if !known {
			continue
		}
		g.keep(k, slices.DeleteFunc(g.waiting[k], func(w *waiter[V]) bool {
			if !w.done(v) {
				return false
			}
			w.came <- result[V]{value: v}
			return true
		}))
	}
}

func (g *Group[K, V]) fail(keys []K, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys {
		for _, w := range g.waiting[k] {
			w.came <- result[V]{err: err}
		}
		delete(g.waiting, k)
	}
}
