package await_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"payments/internal/await"
)

// table is what a look reads.
type table struct {
	mu    sync.Mutex
	rows  map[string]int
	err   error
	took  time.Duration // by a look
	looks [][]string
}

func (t *table) look(_ context.Context, keys []string) (map[string]int, error) {
	after(t.took)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.looks = append(t.looks, keys)
	return maps.Clone(t.rows), t.err
}

// seen are the keys of each look so far.
func (t *table) seen() [][]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.looks)
}

func (t *table) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

func (t *table) set(key string, v int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[key] = v
}

// after the time of the bubble, in which nothing else happens.
func after(d time.Duration) { <-time.After(d) }

func atLeast(n int) func(int) bool { return func(v int) bool { return v >= n } }

func TestWaitersShareALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := &table{rows: map[string]int{"a": 1}}
		g := await.New(time.Second, rows.look)
		var wg sync.WaitGroup
		for _, key := range []string{"a", "a", "b"} {
			wg.Go(func() {
				if v, err := g.Wait(t.Context(), key, atLeast(2)); v != 2 || err != nil {
					t.Errorf("%s: %d, %v", key, v, err)
				}
			})
		}
		synctest.Wait()
		after(time.Second + time.Millisecond)
		synctest.Wait()
		if len(rows.seen()) != 1 || len(rows.seen()[0]) != 2 {
			t.Fatalf("%v, want one look for two keys", rows.seen())
		}
		rows.set("a", 2)
		rows.set("b", 2)
		wg.Wait()
		if len(rows.seen()) != 2 {
			t.Errorf("%d looks, want 2", len(rows.seen()))
		}
	})
}

func TestAWakeComesBeforeTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := &table{rows: map[string]int{}}
		g := await.New(time.Hour, rows.look)
		began := time.Now()
		came := make(chan int)
		go func() {
			v, _ := g.Wait(t.Context(), "a", atLeast(1))
			came <- v
		}()
		synctest.Wait()
		rows.set("a", 7)
		g.Wake()
		if v := <-came; v != 7 || time.Since(began) != 0 {
			t.Errorf("%d after %v", v, time.Since(began))
		}
	})
}

func TestManyWakesAreAFifthOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := &table{rows: map[string]int{}, took: 10 * time.Millisecond}
		g := await.New(time.Hour, rows.look)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			for ctx.Err() == nil {
				g.Wake()
				after(time.Millisecond)
			}
		}()
		if _, err := g.Wait(ctx, "a", atLeast(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		after(time.Minute) // both goroutines have ended
		if n := len(rows.seen()); n < 15 || n > 22 {
			t.Errorf("%d looks of 10 ms in a second", n)
		}
	})
}

func TestALookThatFailsIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := &table{rows: map[string]int{"a": 1}, err: errors.New("away")}
		g := await.New(time.Second, rows.look)
		came := make(chan error)
		go func() {
			_, err := g.Wait(t.Context(), "a", atLeast(1))
			came <- err
		}()
		after(10 * time.Second)
		rows.fail(nil)
		if err := <-came; err != nil {
			t.Error(err)
		}
	})
}

func TestLooksThatGoOnFailingAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		rows := &table{rows: map[string]int{}, err: away}
		g := await.New(time.Second, rows.look)
		began := time.Now()
		if _, err := g.Wait(t.Context(), "a", atLeast(1)); !errors.Is(err, away) || time.Since(began) != 15*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestWhoLeavesIsNotLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := &table{rows: map[string]int{}}
		g := await.New(time.Second, rows.look)
		leaving, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := g.Wait(leaving, "a", atLeast(1))
			left <- err
		}()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		rows.set("b", 1)
		if _, err := g.Wait(t.Context(), "b", atLeast(1)); err != nil {
			t.Fatal(err)
		}
		if len(rows.seen()) != 1 || len(rows.seen()[0]) != 1 {
			t.Errorf("%v, want one look for b alone", rows.seen())
		}
		after(time.Minute)
		if len(rows.seen()) != 1 {
			t.Errorf("%d looks while nobody waits", len(rows.seen()))
		}
	})
}
