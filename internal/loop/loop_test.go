package loop_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/loop"
)

// An alert compares the time of the last turn with now. A loop that never had a turn,
// since what it needs was away from the start, must not be missing there.
func TestALoopHasItsSeriesFromTheStart(t *testing.T) {
	registry := prometheus.NewRegistry()
	now := time.Unix(1_800_000_000, 0)
	monitor := loop.NewMonitor(func() time.Time { return now }, registry)
	monitor.Expect("relay", 15*time.Second)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
		# HELP payments_loop_errors_total Turns that ended in an error.
		# TYPE payments_loop_errors_total counter
		payments_loop_errors_total{loop="relay"} 0
		# HELP payments_loop_last_turn_timestamp_seconds When the loop last turned without an error, or when it was started.
		# TYPE payments_loop_last_turn_timestamp_seconds gauge
		payments_loop_last_turn_timestamp_seconds{loop="relay"} 1.8e+09
		# HELP payments_loop_turn_within_seconds The longest time between two turns of a healthy loop.
		# TYPE payments_loop_turn_within_seconds gauge
		payments_loop_turn_within_seconds{loop="relay"} 15
	`)); err != nil {
		t.Error(err)
	}
}

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
				RunOnce: func(ctx context.Context) (bool, error) {
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
