// Package groupcommit lets what is ready at the same time share a transaction. While one
// commit of a key is under way, what comes for that key waits and makes the next commit: a
// lone entry is committed at once, and under load the entries of a commit grow by
// themselves, without a timer (group commit: D. J. DeWitt et al., Implementation Techniques
// for Main Memory Database Systems, 1984).
//
// It knows no database. It imports the standard library only.
package groupcommit

import (
	"context"
	"slices"
	"sync"
)

// Group collects entries by key, which is a merchant's id here: a transaction stays inside
// one merchant. It is safe for concurrent use.
type Group[E any] struct {
	commit func(ctx context.Context, entries []E)
	limit  int           // entries of one commit
	slots  chan struct{} // commits side by side

	mu      sync.Mutex
	waiting map[string][]*waiter[E] // by key; present while a goroutine commits for it
}

type waiter[E any] struct {
	entry E
	taken bool // into a commit
	done  chan struct{}
}

// New makes a group of at most limit entries a commit, and parallel commits, each of another
// key. commit must end by itself, and say in each entry how it ended.
func New[E any](limit, parallel int, commit func(ctx context.Context, entries []E)) *Group[E] {
	return &Group[E]{commit: commit, limit: limit, slots: make(chan struct{}, parallel), waiting: map[string][]*waiter[E]{}}
}

// Submit returns nil when the entry's commit has ended, whatever ctx does meanwhile, or ctx's
// error if that ended before a commit took the entry: then nothing was done with it. The
// commit has the values of a ctx of one of its key's entries, and no end.
func (g *Group[E]) Submit(ctx context.Context, key string, e E) error {
	w := &waiter[E]{entry: e, done: make(chan struct{})}
	g.mu.Lock()
	queue, running := g.waiting[key]
	g.waiting[key] = append(queue, w)
	g.mu.Unlock()
	if !running {
		go g.run(context.WithoutCancel(ctx), key)
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	if g.withdraw(key, w) {
		return ctx.Err()
	}
	<-w.done
	return nil
}

func (g *Group[E]) withdraw(key string, w *waiter[E]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.taken {
		return false
	}
	g.waiting[key] = slices.DeleteFunc(g.waiting[key], func(other *waiter[E]) bool { return other == w })
	return true
}

// Waiting is how many entries of the key wait for a commit to take them.
func (g *Group[E]) Waiting(key string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting[key])
}

// run commits for one key until nothing of it waits.
func (g *Group[E]) run(ctx context.Context, key string) {
	for {
		g.slots <- struct{}{}
		taken := g.take(key)
		if len(taken) > 0 {
			entries := make([]E, len(taken))
			for n, w := range taken {
				entries[n] = w.entry
			}
			g.commit(ctx, entries)
		}
		<-g.slots
		if len(taken) == 0 {
			return
		}
		for _, w := range taken {
			close(w.done)
		}
	}
}

// take gives the entries of the next commit. None: the key is free.
func (g *Group[E]) take(key string) []*waiter[E] {
	g.mu.Lock()
	defer g.mu.Unlock()
	queue := g.waiting[key]
	taken := queue[:min(len(queue), g.limit)]
	g.waiting[key] = slices.Clone(queue[len(taken):])
	if len(taken) == 0 {
		delete(g.waiting, key)
	}
	for _, w := range taken {
		w.taken = true
	}
	return taken
}
