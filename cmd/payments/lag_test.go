package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// A naive lag asks the consumer, or compares its newest event with its own
// cursor: a dead one is never behind. Here nobody consumes, and the lag grows.
func TestTheLagOfADeadConsumerGrows(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	in, err := inbox.New(pool, projector, func(context.Context, pgx.Tx, []inbox.Message) error { return nil },
		inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := start
	var log []inbox.Message
	event := func(at time.Time) {
		log = append(log, inbox.Message{
			Topic: payment.Topic, Offset: int64(len(log)), Key: []byte("k"), Time: at.Add(time.Hour),
			Headers: map[string]string{inbox.HeaderID: at.String(), "ce_time": at.Format(time.RFC3339Nano)},
		})
	}
	var away error
	unpublished := time.Duration(0)
	l := &lag{
		inbox: in, consumer: projector, now: func() time.Time { return now },
		gauge:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "age_seconds", Help: "Of the oldest."}, []string{"consumer"}),
		unpublished: func(context.Context) (time.Duration, error) { return unpublished, away },
		waiting: func(_ context.Context, _ string, next map[int]int64) ([]inbox.Message, error) {
			if next[0] >= int64(len(log)) {
				return nil, nil
			}
			return log[next[0] : next[0]+1], nil
		},
	}
	is := func(what string, want time.Duration) {
		t.Helper()
		_, err := l.turn(t.Context())
		if !errors.Is(err, away) {
			t.Errorf("%s: %v", what, err)
		}
		if got := testutil.ToFloat64(l.gauge.WithLabelValues(projector)); got != want.Seconds() {
			t.Errorf("%s: %v s, want %v", what, got, want)
		}
	}
	is("nothing was ever sent", 0)
	event(start)
	event(start.Add(time.Minute))
	now = start.Add(2 * time.Minute)
	is("nobody consumes", 2*time.Minute)
	if _, err := in.Apply(t.Context(), 1, log[:1]); err != nil {
		t.Fatal(err)
	}
	is("one of two is applied", time.Minute)
	if _, err := in.Apply(t.Context(), 1, log[1:]); err != nil {
		t.Fatal(err)
	}
	is("all is applied", 0)
	unpublished = 3 * time.Second
	is("an event is committed and not in the log", 3*time.Second)
	away = errors.New("away")
	now = now.Add(time.Minute)
	is("the age cannot be known", time.Minute+3*time.Second)
	away, unpublished = nil, 0
	is("it can be known again", 0)
}

// Kafka is away and an event has been committed and unpublished for an hour. The process is
// restarted (a deployment, a crash loop). Postgres alone tells how old the event is.
func TestTheLagIsKnownAfterARestartDuringAnOutage(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	away := errors.New("kafka is away")
	now := time.Now()
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "age_seconds", Help: "x"}, []string{"consumer"})
	unpublished := time.Duration(0)
	process := func() *lag {
		in, err := inbox.New(pool, projector, func(context.Context, pgx.Tx, []inbox.Message) error { return nil },
			inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		return &lag{
			inbox: in, consumer: projector, now: func() time.Time { return now }, gauge: gauge,
			unpublished: func(context.Context) (time.Duration, error) { return unpublished, nil }, // Postgres answers
			waiting:     func(context.Context, string, map[int]int64) ([]inbox.Message, error) { return nil, away },
		}
	}
	l := process()
	if _, err := l.turn(t.Context()); !errors.Is(err, away) {
		t.Fatal(err)
	}
	if n := testutil.CollectAndCount(gauge); n != 0 {
		t.Error("all is published, the log cannot be read, and the gauge says how old the oldest unapplied event is")
	}
	unpublished = time.Hour
	for range 100 { // 500 s of turns
		_, err := l.turn(t.Context())
		if !errors.Is(err, away) {
			t.Fatal(err)
		}
		now = now.Add(5 * time.Second)
	}
	if got := testutil.ToFloat64(gauge.WithLabelValues(projector)); got < 3600 {
		t.Errorf("an event has waited for %v, nobody can ask Kafka, and payments_inbox_oldest_unapplied_seconds is %v", time.Hour+500*time.Second, got)
	}
}
