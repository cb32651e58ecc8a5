package saga

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// windows lets n windows of calls end, each with so many unclear among ten.
func windows(t *testing.T, l *limit, n, unclear int) {
	t.Helper()
	for range n {
		size := max(l.allowed, leastWindow)
		for done := 0; done < size; {
			var permits []permit
			for range min(l.allowed, size-done) {
				p, ok := l.acquire(t.Context(), 0)
				if !ok {
					t.Fatal("no permit though none is taken")
				}
				permits = append(permits, p)
			}
			for _, p := range permits {
				answered := (done+1)*unclear/10 == done*unclear/10
				done++
				l.release(p, answered)
			}
		}
	}
}

func TestTheLimitFallsByHalfAndRisesByOne(t *testing.T) {
	l := newLimit(64, func(int) {})
	for _, step := range []struct{ windows, unclear, want int }{
		{3, 5, 64}, {1, 6, 32}, {1, 10, 16}, {5, 5, 21}, {9, 10, 1}, {1, 10, 1}, {2, 0, 3},
	} {
		if windows(t, l, step.windows, step.unclear); l.allowed != step.want {
			t.Errorf("after %d windows with %d of ten unclear %d are allowed, not %d", step.windows, step.unclear, l.allowed, step.want)
		}
	}
	l.restart()
	for _, step := range []struct{ windows, unclear, want int }{{1, 0, 2}, {3, 0, 16}, {1, 6, 8}, {1, 0, 9}} {
		if windows(t, l, step.windows, step.unclear); l.allowed != step.want {
			t.Errorf("after an outage %d are allowed, not %d", l.allowed, step.want)
		}
	}
}

// What is not needed says nothing of what could be done.
func TestTheLimitDoesNotRiseUnneeded(t *testing.T) {
	l := newLimit(64, func(int) {})
	windows(t, l, 1, 10)
	for range 10 * l.allowed {
		p, _ := l.acquire(t.Context(), 0)
		l.release(p, true)
	}
	if l.allowed != 32 {
		t.Errorf("one call at a time, and %d are allowed", l.allowed)
	}
}

// Calls that were under way when the limit fell are cut off as well, and count
// against what was, not against what is.
func TestTheLimitFallsOnceForWhatWasUnderWay(t *testing.T) {
	l := newLimit(64, func(int) {})
	permits := make([]permit, 64)
	for n := range permits {
		permits[n], _ = l.acquire(t.Context(), 0)
	}
	l.set(32)
	for _, p := range permits {
		l.release(p, false)
	}
	if l.allowed != 32 {
		t.Errorf("%d are allowed", l.allowed)
	}
}

func TestCallsWaitTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimit(1, func(int) {})
		first, _ := l.acquire(t.Context(), 0)
		var mu sync.Mutex
		var order []int
		ended := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, n)
		}
		for n := range 3 {
			go func() {
				p, ok := l.acquire(t.Context(), time.Duration(10-9*(n%2))*time.Second)
				if !ok {
					ended(-n)
					return
				}
				ended(n)
				l.release(p, true)
			}()
			synctest.Wait()
		}
		if l.most = 4; l.room() != -2 {
			t.Errorf("three wait for one, and there is room for %d", l.room())
		}
		<-time.After(2 * time.Second) // the second has waited long enough
		l.release(first, true)
		synctest.Wait()
		if len(order) != 3 || order[0] != -1 || order[1] != 0 || order[2] != 2 || l.calling != 0 {
			t.Errorf("in the order %v, %d under way", order, l.calling)
		}
	})
}
