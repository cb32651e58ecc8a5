package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// lag measures how old the oldest event is that a consumer has not taken in,
// among all that are committed: those in Kafka behind the offsets that stand in
// the consumer's database, and those that the relay has not published. It asks
// the log and the tables, never the consumer, so that a dead one cannot hide, and
// every process with the role relay or projector measures.
type lag struct {
	gauge       *prometheus.GaugeVec
	inbox       *inbox.Inbox
	consumer    string
	waiting     func(ctx context.Context, topic string, next map[int]int64) ([]inbox.Message, error)
	unpublished func(context.Context) (time.Duration, error)
	now         func() time.Time

	oldest   time.Duration // when it was last known
	measured time.Time
}

// measureLag of both consumers: each is another loop, so that one that cannot be
// measured hides nothing of the other.
func (s *service) measureLag(ctx context.Context) {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "payments_inbox_oldest_unapplied_seconds",
		Help: "Age of the oldest committed event that the consumer has neither applied nor parked.",
	}, []string{"consumer"})
	s.registry.MustRegister(gauge)
	for name, l := range map[string]*lag{"inbox_lag": newLag(s, s.inbox, projector, gauge), "webhooks_lag": newLag(s, s.webhookInbox, webhooks, gauge)} {
		s.loop(ctx, name, 5*time.Second, l.turn, nil)
	}
}

func newLag(s *service, in *inbox.Inbox, consumer string, gauge *prometheus.GaugeVec) *lag {
	return &lag{inbox: in, consumer: consumer, gauge: gauge, waiting: s.broker.Waiting, unpublished: s.oldestUnpublished, now: time.Now}
}

// turn lets the age grow while it cannot be measured: what nobody can see counts
// as not applied.
func (l *lag) turn(ctx context.Context) (again bool, err error) {
	oldest, err := l.measure(ctx)
	if err == nil {
		l.oldest, l.measured = oldest, l.now()
	} else if !l.measured.IsZero() {
		oldest = l.oldest + l.now().Sub(l.measured)
	}
	l.gauge.WithLabelValues(l.consumer).Set(oldest.Seconds())
	return false, err
}

func (l *lag) measure(ctx context.Context) (oldest time.Duration, err error) {
	if err := l.inbox.Measure(ctx); err != nil {
		return 0, err
	}
	// The log is read last: an event that is published meanwhile is in one of the two.
	if oldest, err = l.unpublished(ctx); err != nil {
		return 0, err
	}
	next, err := l.inbox.Offsets(ctx, payment.Topic)
	if err != nil {
		return 0, err
	}
	waiting, err := l.waiting(ctx, payment.Topic, next)
	if err != nil {
		return 0, err
	}
	for _, m := range waiting {
		oldest = max(oldest, l.now().Sub(happened(m)))
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
