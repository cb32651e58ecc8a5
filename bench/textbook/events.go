package textbook

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

type event struct {
	position int64
	id, key  string
	sequence int64
	kind     string
	payload  []byte
}

// relay publishes what has no flag yet, a hundred at a time, and sets the flag.
func (s *service) relay(ctx context.Context) error {
	producer, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.Brokers, ",")...), kgo.DefaultProduceTopic(s.Topic), kgo.AllowAutoTopicCreation())
	if err != nil {
		return err
	}
	defer producer.Close()
	return loop(ctx, 5*time.Millisecond, func(ctx context.Context) (more bool, err error) {
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `
				SELECT position, id, key, sequence, type, payload FROM outbox WHERE NOT published
				ORDER BY position LIMIT 100 FOR UPDATE SKIP LOCKED`)
			if err != nil {
				return err
			}
			events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e event, err error) {
				err = row.Scan(&e.position, &e.id, &e.key, &e.sequence, &e.kind, &e.payload)
				return e, err
			})
			if err != nil || len(events) == 0 {
				return err
			}
			more = true
			records := make([]*kgo.Record, len(events))
			for i, e := range events {
				records[i] = &kgo.Record{Key: []byte(e.key), Value: e.payload, Headers: []kgo.RecordHeader{
					{Key: "id", Value: []byte(e.id)}, {Key: "type", Value: []byte(e.kind)}, {Key: "sequence", Value: []byte(strconv.FormatInt(e.sequence, 10))},
				}}
			}
			if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
				return err
			}
			for _, e := range events {
				if _, err := tx.Exec(ctx, `UPDATE outbox SET published = true WHERE position = $1`, e.position); err != nil {
					return err
				}
			}
			return nil
		})
		return more, err
	})
}

// project applies each message in a transaction of its own, with its id for deduplication.
func (s *service) project(ctx context.Context) error {
	consumer, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.Brokers, ",")...), kgo.ConsumeTopics(s.Topic),
		kgo.ConsumerGroup(s.Topic+".projector"), kgo.DisableAutoCommit(), kgo.AllowAutoTopicCreation(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer consumer.Close()
	for ctx.Err() == nil {
		fetched := consumer.PollFetches(ctx)
		for _, record := range fetched.Records() {
			if err := s.apply(ctx, record); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("apply an event: %w", err)
			}
		}
		if err := consumer.CommitRecords(ctx, fetched.Records()...); err != nil && ctx.Err() == nil {
			return fmt.Errorf("commit offsets: %w", err)
		}
	}
	return nil
}

func (s *service) apply(ctx context.Context, record *kgo.Record) error {
	headers := map[string]string{}
	for _, h := range record.Headers {
		headers[h.Key] = string(h.Value)
	}
	var data struct {
		PaymentID  string          `json:"payment_id"`
		MerchantID string          `json:"merchant_id"`
		Amount     int64           `json:"amount"`
		Currency   string          `json:"currency"`
		Customer   string          `json:"customer"`
		Reference  string          `json:"reference"`
		Lines      json.RawMessage `json:"lines"`
	}
	if err := json.Unmarshal(record.Value, &data); err != nil {
		return err
	}
	sequence, err := strconv.ParseInt(headers["sequence"], 10, 64)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		fresh, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('projector', $1) ON CONFLICT DO NOTHING`, headers["id"])
		if err != nil || fresh.RowsAffected() == 0 {
			return err
		}
		if headers["type"] == "order.placed" {
			_, err = tx.Exec(ctx, `
				INSERT INTO payment_view (payment_id, merchant_id, sequence, status, currency, amount, customer, reference, lines, created_at, updated_at)
				VALUES ($1, $2, $3, 'processing', $4, $5, $6, $7, $8, now(), now())`,
				data.PaymentID, data.MerchantID, sequence, data.Currency, data.Amount, data.Customer, data.Reference, string(data.Lines))
		} else {
			_, err = tx.Exec(ctx, `
				UPDATE payment_view SET sequence = $2, updated_at = now(),
					status = CASE $3 WHEN 'payment.captured' THEN 'succeeded' WHEN 'payment.failed' THEN 'failed' ELSE status END
				WHERE payment_id = $1 AND sequence < $2`, data.PaymentID, sequence, headers["type"])
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO payment_timeline (payment_id, sequence, type, data) VALUES ($1, $2, $3, $4)`,
			data.PaymentID, sequence, headers["type"], string(record.Value))
		return err
	})
}
