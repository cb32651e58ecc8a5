package saga

import (
	"context"
	"sync"
)

// group collects what is ready to be committed while the commits before it are
// under way, a merchant at a time: a transaction stays inside one merchant.
type group struct {
	commit func(ctx context.Context, entries []*entry)
	limit  int           // entries of one commit
	slots  chan struct{} // commits side by side

	mu      sync.Mutex
	waiting map[string][]*entry // by merchant; present while a goroutine commits for it
}

func newGroup(limit, parallel int, commit func(context.Context, []*entry)) *group {
	return &group{commit: commit, limit: limit, slots: make(chan struct{}, parallel), waiting: map[string][]*entry{}}
}

// submit returns when the entry is committed, or its err says why not.
func (g *group) submit(ctx context.Context, e *entry) error {
	e.done = make(chan struct{})
	merchant := e.saga.MerchantID
	g.mu.Lock()
	queue, running := g.waiting[merchant]
	g.waiting[merchant] = append(queue, e)
	g.mu.Unlock()
	if !running {
		go g.run(ctx, merchant)
	}
	<-e.done
	return e.err
}

// run commits for one merchant until nothing of it waits.
func (g *group) run(ctx context.Context, merchant string) {
	for {
		g.slots <- struct{}{}
		g.mu.Lock()
		queue := g.waiting[merchant]
		batch := queue[:min(len(queue), g.limit)]
		g.waiting[merchant] = queue[len(batch):]
		if len(batch) == 0 {
			delete(g.waiting, merchant)
		}
		g.mu.Unlock()
		if len(batch) > 0 {
			g.commit(ctx, batch)
		}
		<-g.slots
		if len(batch) == 0 {
			return
		}
		for _, e := range batch {
			close(e.done)
		}
	}
}
