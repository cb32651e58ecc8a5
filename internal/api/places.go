package api

import (
	"maps"
	"slices"
	"sync"
)

// The bounds that may be reached.
const (
	boundKey     = "key"
	boundProcess = "process"
)

// places bounds how many of something are held open at once in a process: of all API
// keys, so that it does not fail, and of one, so that it fails nobody else.
type places struct {
	most, mostOfKey int

	mu    sync.Mutex
	taken int
	ofKey map[string]int
}

// take gives a place that has to be given back once, or names the bound that is reached.
func (p *places) take(keyID string) (giveBack func(), bound string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ofKey[keyID] >= p.mostOfKey:
		return nil, boundKey
	case p.taken >= p.most:
		return nil, boundProcess
	}
	if p.ofKey == nil {
		p.ofKey = map[string]int{}
	}
	p.taken++
	p.ofKey[keyID]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken--
		if p.ofKey[keyID]--; p.ofKey[keyID] == 0 {
			delete(p.ofKey, keyID)
		}
	}, ""
}

// keys are the ids of those that hold a place.
func (p *places) keys() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.ofKey))
}
