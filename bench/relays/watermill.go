package relays

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
)

// Watermill's outbox: its SQL publisher in the writer's transaction, wrapped for the
// Forwarder, which reads the table and publishes to Kafka. Schema and offsets are its
// defaults for Postgres; it asks every 5 ms, as ours does, and in batches of 1000 in
// the place of 100.
const forwarderTopic = "forwarder"

var watermillSchema = sql.DefaultPostgreSQLSchema{SubscribeBatchSize: 1000}

func prepareWatermill(ctx context.Context, p *place) error {
	// As the owner: the service's role makes no tables.
	sub, err := sql.NewSubscriber(sql.BeginnerFromPgx(p.owner), watermillSubscriber(), watermill.NopLogger{})
	if err != nil {
		return err
	}
	if err := errors.Join(sub.SubscribeInitialize(forwarderTopic), sub.Close()); err != nil {
		return err
	}
	_, err = p.owner.Exec(ctx, `
		GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC`)
	return err
}

func watermillSubscriber() sql.SubscriberConfig {
	return sql.SubscriberConfig{
		SchemaAdapter: watermillSchema, OffsetsAdapter: sql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true,
		PollInterval: 5 * time.Millisecond, ResendInterval: 5 * time.Millisecond, RetryInterval: 5 * time.Millisecond,
	}
}

func appendWatermill(_ context.Context, p *place, tx pgx.Tx, events []event) error {
	pub, err := sql.NewPublisher(sql.TxFromPgx(tx), sql.PublisherConfig{SchemaAdapter: watermillSchema}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	wrapped := forwarder.NewPublisher(pub, forwarder.PublisherConfig{ForwarderTopic: forwarderTopic})
	messages := make([]*message.Message, len(events))
	for i, e := range events {
		messages[i] = message.NewMessage(watermill.NewUUID(), e.payload)
		messages[i].Metadata.Set("key", e.key)
		for _, h := range e.headers() {
			messages[i].Metadata.Set(h.Key, h.Value)
		}
	}
	return wrapped.Publish(p.topic, messages...)
}

func relayWatermill(ctx context.Context, p *place, ready func()) error {
	sub, err := sql.NewSubscriber(sql.BeginnerFromPgx(p.owner), watermillSubscriber(), watermill.NopLogger{})
	if err != nil {
		return err
	}
	config := kafka.DefaultSaramaSyncPublisherConfig()
	config.Producer.RequiredAcks = -1 // all
	pub, err := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers: []string{p.stack.kafka}, OverwriteSaramaConfig: config,
		Marshaler: kafka.NewWithPartitioningMarshaler(func(_ string, m *message.Message) (string, error) {
			return m.Metadata.Get("key"), nil
		}),
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	f, err := forwarder.NewForwarder(sub, pub, watermill.NopLogger{}, forwarder.Config{
		ForwarderTopic: forwarderTopic, CloseTimeout: time.Second,
	})
	if err != nil {
		return err
	}
	ready()
	return errors.Join(f.Run(ctx), pub.Close())
}
