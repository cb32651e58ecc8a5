package loop_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/loop"
)

// A loop that turns once an hour is not dead between two turns, and is when one stays out.
func TestALoopIsStaleByItsOwnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		monitor := loop.NewMonitor(time.Now, prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		var turns atomic.Int32
		go func() {
			done <- loop.Run(ctx, loop.Config{
				Name: "hourly", Interval: time.Hour, Monitor: monitor, Log: slog.New(slog.DiscardHandler),
				Turn: func(ctx context.Context) (bool, error) {
					if turns.Add(1) > 2 {
						<-ctx.Done()
					}
					return false, nil
				},
			})
		}()
		<-time.After(119 * time.Minute)
		if stale := monitor.Stale(); len(stale) > 0 || turns.Load() != 2 {
			t.Errorf("after %d turns in 119 minutes %v are stale", turns.Load(), stale)
		}
		<-time.After(2 * time.Minute)
		if stale := monitor.Stale(); len(stale) != 1 || turns.Load() != 3 {
			t.Errorf("a minute into the third turn, which hangs, %v are stale", stale)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
