package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/config"
	"payments/internal/inbox"
	"payments/internal/webhook"
)

// The consumer's name, in its group and in its inbox.
const webhooks = "webhooks"

// maxExhausted deliveries in a row that failed for good, each over three days,
// disable a merchant's endpoint.
const maxExhausted = 5

// newWebhookInbox takes events in beside the write model, where the endpoints are.
func newWebhookInbox(write *pgxpool.Pool, c config.Config, log *slog.Logger, reg prometheus.Registerer) (*inbox.Inbox, error) {
	return webhook.NewInbox(write, webhooks, generator(), inbox.Config{MaxAttempts: c.InboxMaxAttempts, Log: log, Registerer: reg})
}

func (s *service) webhookStore() *webhook.Store {
	return webhook.NewStore(s.write, generator(), s.Cipher, webhook.Guard{AllowPrivate: s.WebhooksAllowPrivate})
}

// deadLetters are those of the read model's database. Those of the webhooks' consumer
// are there as well, unless it is another one than the write model's.
func (s *service) deadLetters() *inbox.DeadLetters {
	if s.read != s.write {
		return inbox.NewDeadLetters(s.read, s.inbox)
	}
	return inbox.NewDeadLetters(s.read, s.inbox, s.webhookInbox)
}

// dispatchWebhooks turns events into deliveries and delivers them.
func (s *service) dispatchWebhooks(ctx context.Context) (err error) {
	s.dispatcher, err = webhook.NewDispatcher(s.write, webhook.Config{
		Guard: webhook.Guard{AllowPrivate: s.WebhooksAllowPrivate}, Cipher: s.Cipher, Owner: owner(), Concurrency: s.WebhooksConcurrency,
		MaxExhausted: maxExhausted, Now: time.Now, Log: s.log, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.consume(ctx, "webhooks_fanout", webhooks, waking{s.webhookInbox, s.dispatcher.Wake})
	s.loop(ctx, "webhooks", 200*time.Millisecond, s.dispatcher.RunOnce, s.dispatcher.Woken())
	s.loop(ctx, "webhooks_metrics", 5*time.Second, s.dispatcher.Measure, nil)
	s.loop(ctx, "webhooks_reaper", time.Minute, func(ctx context.Context) (bool, error) { return webhook.Reap(ctx, s.write) }, nil)
	return nil
}
