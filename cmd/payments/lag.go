package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// lag measures how old the oldest event is that a consumer has not taken in,
// among all that are committed: those in Kafka behind the offsets that stand in
// the consumer's database, and those that the relay has not published. It asks
// the log and the tables, never the consumer, so that a dead one cannot hide. Every
// process with the role relay, projector or webhooks measures.
type lag struct {
	gauge       *prometheus.GaugeVec
	inbox       *inbox.Inbox
	consumer    string
	waiting     func(ctx context.Context, topic string, next map[int]int64) ([]inbox.Message, error)
	unpublished func(context.Context) (time.Duration, error)
	now         func() time.Time
	// clock is the database's, which events have their time from. Another machine's clock
	// would be an age that nothing has. Default now.
	clock func(context.Context) (time.Time, error)

	oldest time.Duration // the age, or what it was at least, at the time known
	known  time.Time     // zero while nothing is known
}

// measureLag of both consumers: each is another loop, so that one that cannot be
// measured hides nothing of the other.
func (s *service) measureLag(ctx context.Context) {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "payments_inbox_oldest_unapplied_seconds",
		Help: "Age of the oldest committed event that the consumer has neither applied nor made a dead letter.",
	}, []string{"consumer"})
	s.registry.MustRegister(gauge)
	for name, l := range map[string]*lag{"inbox_lag": newLag(s, s.inbox, projector, gauge), "webhooks_lag": newLag(s, s.webhookInbox, webhooks, gauge)} {
		s.loop(ctx, name, 5*time.Second, l.turn, nil)
	}
}

func newLag(s *service, in *inbox.Inbox, consumer string, gauge *prometheus.GaugeVec) *lag {
	return &lag{
		inbox: in, consumer: consumer, gauge: gauge, waiting: s.broker.Waiting, unpublished: s.oldestUnpublished, now: time.Now,
		clock: func(ctx context.Context) (now time.Time, err error) {
			err = s.write.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
			return now, err
		},
	}
}

// turn sets the gauge to the age. While the age cannot be measured the gauge has what it
// must be at least: the age of the oldest unpublished event, which Postgres alone tells,
// and the last known age, which grows with time. The gauge has no series while nothing is
// known: 0 would say that the consumer is not behind.
func (l *lag) turn(ctx context.Context) (again bool, err error) {
	oldest, err := l.measure(ctx)
	if err != nil && !l.known.IsZero() {
		oldest = max(oldest, l.oldest+l.now().Sub(l.known))
	}
	if err == nil || oldest > 0 {
		l.oldest, l.known = oldest, l.now()
		l.gauge.WithLabelValues(l.consumer).Set(oldest.Seconds())
	}
	return false, err
}

// measure returns the age, and with an error what the age is at least.
func (l *lag) measure(ctx context.Context) (oldest time.Duration, err error) {
	// The log is read last: an event that is published meanwhile is in one of the two.
	oldest, err = l.unpublished(ctx)
	if err != nil {
		return 0, err
	}
	if err := l.inbox.Measure(ctx); err != nil {
		return oldest, err
	}
	next, err := l.inbox.Offsets(ctx, payment.Topic)
	if err != nil {
		return oldest, err
	}
	waiting, err := l.waiting(ctx, payment.Topic, next)
	if err != nil {
		return oldest, err
	}
	now := l.now()
	if l.clock != nil && len(waiting) > 0 {
		if now, err = l.clock(ctx); err != nil {
			return oldest, fmt.Errorf("ask the database's time: %w", err)
		}
	}
	for _, m := range waiting {
		oldest = max(oldest, now.Sub(happened(m)))
	}
	return oldest, nil
}

// happened is the event's own time, which an outage of the broker does not make
// younger, or that of its record when it has none.
func happened(m inbox.Message) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, m.Headers["ce_time"]); err == nil {
		return at
	}
	return m.Time
}
