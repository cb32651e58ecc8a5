package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/inbox"
	"payments/internal/outbox"
)

// lag watches one event at a time, the newest that was committed, until the
// projection has applied it. It asks the tables, never the consumer, so that a
// dead consumer cannot hide.
type lag struct {
	gauge   prometheus.Gauge
	service *service
	inbox   *inbox.Inbox
	watched string
	since   time.Time
}

func newLag(s *service, in *inbox.Inbox) *lag {
	l := &lag{service: s, inbox: in, gauge: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "payments_projection_oldest_unapplied_seconds",
		Help: "Age of a committed event that the read model has not applied; it may be older than shown by one interval of 5 s.",
	})}
	s.registry.MustRegister(l.gauge)
	return l
}

func (l *lag) turn(ctx context.Context) (again bool, err error) {
	if l.watched == "" {
		id, age, err := outbox.Newest(ctx, l.service.write)
		if err != nil || id == "" {
			return false, err
		}
		l.watched, l.since = id, time.Now().Add(-age)
	}
	applied, err := l.inbox.Applied(ctx, l.watched)
	switch {
	case err != nil:
		l.gauge.Set(time.Since(l.since).Seconds())
		return false, err
	case applied:
		l.watched = ""
		l.gauge.Set(0)
	default:
		l.gauge.Set(time.Since(l.since).Seconds())
	}
	return false, nil
}
