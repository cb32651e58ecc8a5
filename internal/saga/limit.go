package saga

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// A window is this many calls, or as many as are allowed at once if that is more.
	leastWindow = 20
	// More than one call in mostUnclear of a window is too many without an answer: since
	// each such call is looked up, no more than half can be as long as the lookups are
	// answered. Fewer say nothing of load: one bank of many that does not answer is
	// no reason to call the others less.
	mostUnclear = 2
)

// limit is how many calls may be under way at once. It falls by half when more than
// half of a window's calls end without an answer, and rises by one with each
// window that needed all of it (additive increase, multiplicative decrease: D.-M.
// Chiu, R. Jain, 1989). Beyond what the other system can do at once, all calls are
// cut off and looked up, and the lookups are cut off as well: that state keeps
// itself up when its cause has gone. After an outage it begins at one and doubles
// up to the first such window (slow start, RFC 5681).
type limit struct {
	most    int
	changed func(allowed int)

	mu       sync.Mutex
	allowed  int
	starting bool
	calling  int
	waiting  []chan struct{} // oldest first

	// The window: of calls that began after the last change, so that one that was
	// cut off by an earlier change is not counted against this one.
	generation        int
	finished, unclear int
	needed            bool // all that is allowed was in use
}

// permit is for one call; its number is the generation that it began in.
type permit int

func newLimit(most int, changed func(int)) *limit {
	changed(most)
	return &limit{most: most, allowed: most, changed: changed}
}

// acquire waits its turn, for at most so long; false then.
func (l *limit) acquire(ctx context.Context, most time.Duration) (permit, bool) {
	l.mu.Lock()
	if l.calling < l.allowed && len(l.waiting) == 0 {
		defer l.mu.Unlock()
		return l.take(), true
	}
	turn := make(chan struct{})
	l.waiting, l.needed = append(l.waiting, turn), true
	l.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-turn:
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if place := slices.Index(l.waiting, turn); place >= 0 {
		l.waiting = slices.Delete(l.waiting, place, place+1)
		return 0, false
	}
	return permit(l.generation), true // admit has counted it
}

func (l *limit) take() permit {
	l.calling++
	l.needed = l.needed || l.calling >= l.allowed
	return permit(l.generation)
}

// cancel gives a permit back of which no call came.
func (l *limit) cancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calling--
	l.admit()
}

// release says how the call ended.
func (l *limit) release(p permit, answered bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calling--
	if int(p) == l.generation {
		l.finished++
		if !answered {
			l.unclear++
		}
		if l.finished >= max(l.allowed, leastWindow) {
			l.judge()
		}
	}
	l.admit()
}

func (l *limit) judge() {
	allowed := l.allowed
	switch {
	case l.unclear*mostUnclear > l.finished:
		l.starting = false
		allowed /= 2
	case !l.needed:
	case l.starting:
		allowed *= 2
	default:
		allowed++
	}
	l.set(allowed)
}

// restart is after an outage: what was allowed before says nothing any more.
func (l *limit) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starting = true
	l.set(1)
}

// set begins a window.
func (l *limit) set(allowed int) {
	l.allowed = min(max(allowed, 1), l.most)
	l.generation++
	l.finished, l.unclear, l.needed = 0, 0, len(l.waiting) > 0
	l.changed(l.allowed)
}

func (l *limit) admit() {
	for l.calling < l.allowed && len(l.waiting) > 0 {
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
		l.take()
	}
}

// room is how many more sagas it makes sense to take up: no more shall wait for
// their call than can make one at once, since a lease ends while they wait.
func (l *limit) room() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allowed - len(l.waiting)
}
