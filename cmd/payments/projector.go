package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/broker"
	"payments/internal/config"
	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

// The consumer's name, in its group and in its inbox.
const projector = "payment_view"

func newInbox(read *pgxpool.Pool, c config.Config, log *slog.Logger, reg prometheus.Registerer) (*inbox.Inbox, error) {
	return readmodel.NewProjector().NewInbox(read, projector, inbox.Config{MaxAttempts: c.InboxMaxAttempts, Log: log, Registerer: reg})
}

// maintainInboxes looks after the projector's, and that of the provider's webhooks.
func (s *service) maintainInboxes(ctx context.Context) (again bool, err error) {
	err = inbox.Maintain(ctx, s.read, time.Now(), s.InboxKeep)
	if s.write != s.read {
		err = errors.Join(err, inbox.Maintain(ctx, s.write, time.Now(), s.InboxKeep))
	}
	return false, err
}

func (s *service) project(ctx context.Context) {
	s.consume(ctx, "projector", projector, waking{s.inbox, s.queries.Changed})
	s.loop(ctx, "projector_gaps", 5*time.Second, func(ctx context.Context) (bool, error) {
		_, err := s.inbox.CloseGaps(ctx)
		return false, err
	}, nil)
	s.loop(ctx, "feed_reaper", time.Minute, func(ctx context.Context) (bool, error) {
		return readmodel.ReapFeeds(ctx, s.read, s.FeedKeep, 1000)
	}, nil)
}

// consume lets the sink have this process's share of the events, as the loop of that name.
func (s *service) consume(ctx context.Context, loop, consumer string, sink broker.Sink) {
	s.monitor.Expect(loop, 30*time.Second)
	s.group.Go(func() error {
		err := s.broker.Consume(ctx, broker.ConsumerConfig{
			Group: "payments." + consumer, Topic: payment.Topic, Log: s.log, Registerer: s.registry,
			Heartbeat: func() { s.monitor.Heartbeat(loop) },
		}, sink)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	})
}

// waking calls wake when a batch is committed.
type waking struct {
	*inbox.Inbox
	wake func()
}

func (w waking) ApplyAll(ctx context.Context, generation int, batches [][]inbox.Message) []inbox.Taken {
	taken := w.Inbox.ApplyAll(ctx, generation, batches)
	if slices.ContainsFunc(taken, func(t inbox.Taken) bool { return t.N > 0 }) {
		w.wake()
	}
	return taken
}
