package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"payments/internal/groupcommit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type entry struct {
	key    string
	number int
}

// recorder holds each commit until it is let go.
type recorder struct {
	mu      sync.Mutex
	commits [][]entry
	let     chan struct{}
}

func (r *recorder) commit(_ context.Context, entries []entry) {
	r.mu.Lock()
	r.commits = append(r.commits, slices.Clone(entries))
	r.mu.Unlock()
	<-r.let
}

func TestWhatComesDuringACommitSharesTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{let: make(chan struct{})}
		g := groupcommit.New(3, 2, r.commit)
		var all sync.WaitGroup
		for n := range 6 {
			all.Go(func() {
				if err := g.Submit(t.Context(), "a", entry{"a", n}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		all.Go(func() { _ = g.Submit(t.Context(), "b", entry{"b", 0}) }) // beside it
		synctest.Wait()
		close(r.let)
		all.Wait()
		if got, want := fmt.Sprint(r.commits), "[[{a 0}] [{b 0}] [{a 1} {a 2} {a 3}] [{a 4} {a 5}]]"; got != want {
			t.Errorf("commits %s, want %s", got, want)
		}
	})
}

func TestAnEntryWhoseCallerLeavesIsWithdrawnUntilItIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{let: make(chan struct{})}
		g := groupcommit.New(3, 1, r.commit)
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		errs := make([]error, 2)
		for n := range errs {
			all.Go(func() { errs[n] = g.Submit(ctx, "a", entry{"a", n}) })
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		close(r.let)
		all.Wait()
		if errs[0] != nil || !errors.Is(errs[1], context.Canceled) {
			t.Errorf("errors %v", errs)
		}
		if got := fmt.Sprint(r.commits); got != "[[{a 0}]]" {
			t.Errorf("commits %s", got)
		}
	})
}
