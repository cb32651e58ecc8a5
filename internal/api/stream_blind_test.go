package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/readmodel"
)

type alwaysLive struct{}

func (alwaysLive) Live(_ context.Context, ids []string) (map[string]bool, error) {
	all := map[string]bool{}
	for _, id := range ids {
		all[id] = true
	}
	return all, nil
}

// PAYMENTS_READ_DATABASE_URL names a database of its own, and that is away for an hour. A stream that
// waits must end: its heartbeats would go on, and its client would take silence for "no events".
func TestAnIdleStreamEndsWhenItsReadDatabaseIsAway(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	now := time.Now()
	f := readmodel.NewFollowers(pool)
	s, err := NewStreams(StreamsConfig{Followers: f, Keys: alwaysLive{}, Now: func() time.Time { return now }, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end, err := s.begin(t.Context(), "key_1", "/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer end(nil)
	_, stop := f.Follow("mer_1", "")
	defer stop()
	failed := 0
	for range 360 { // an hour
		now = now.Add(10 * time.Second)
		if _, err := s.RunOnce(t.Context()); err != nil {
			failed++
		}
	}
	if ctx.Err() == nil {
		t.Errorf("%d looks for events have failed over an hour, and the stream is open", failed)
	}
	if !errors.Is(context.Cause(ctx), errStreamBlind) || why(context.Cause(ctx), nil) != "error" {
		t.Errorf("it ended because of %v, which counts as %s", context.Cause(ctx), why(context.Cause(ctx), nil))
	}
}

// A read database that is away for a moment ends no stream, and each look that succeeds begins the patience anew.
func TestAnIdleStreamBearsAShortOutageOfItsReadDatabase(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	s, err := NewStreams(StreamsConfig{Followers: readmodel.NewFollowers(w.pool), Keys: alwaysLive{}, Now: func() time.Time { return now }, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end, err := s.begin(t.Context(), "key_1", "/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer end(nil)
	_, stop := s.Followers.Follow(w.merchantID, "")
	defer stop()
	away, cancel := context.WithCancel(t.Context())
	cancel() // no statement succeeds
	for range 3 {
		for _, turn := range []context.Context{t.Context(), away} {
			now = now.Add(lookPatience - time.Millisecond)
			if _, err := s.RunOnce(turn); (err != nil) != (turn == away) {
				t.Fatal(err)
			}
		}
	}
	if ctx.Err() != nil {
		t.Errorf("the stream has ended: %v", context.Cause(ctx))
	}
}
