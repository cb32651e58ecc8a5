package order

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/outbox"
	"payments/internal/payment"
	"payments/internal/saga"
)

// emit draws the order's next sequence, which locks its row, and appends the event.
func (s *Service) emit(ctx context.Context, tx pgx.Tx, i *saga.Instance, t payment.EventType, d payment.EventData) error {
	for _, a := range i.Attempts {
		d.Attempts = append([]payment.AttemptData{{
			Number: a.Number, Step: a.Step, Call: a.Call, Outcome: string(a.Outcome), Code: a.Code,
			StartedAt: a.StartedAt.UTC(), FinishedAt: a.Finished.UTC(),
		}}, d.Attempts...)
	}
	i.Attempts = nil // told once
	var sequence int64
	var now time.Time
	err := tx.QueryRow(ctx, `
		UPDATE orders SET sequence = sequence + 1, updated_at = clock_timestamp()
		WHERE merchant_id = $1 AND id = $2 RETURNING sequence, updated_at`, d.MerchantID, d.OrderID).Scan(&sequence, &now)
	if err != nil {
		return fmt.Errorf("draw the order's sequence: %w", err)
	}
	return s.append(ctx, tx, t, sequence, now, d)
}

// append writes a CloudEvents 1.0 event in Kafka's binary mode (Kafka protocol
// binding 1.0.2): attributes as headers, data as the value.
func (s *Service) append(ctx context.Context, tx pgx.Tx, t payment.EventType, sequence int64, at time.Time, d payment.EventData) error {
	payload, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t, err)
	}
	id := s.ids.New(payment.PrefixEvent)
	return outbox.Append(ctx, tx, outbox.Message{
		MerchantID: d.MerchantID, ID: id, Topic: payment.Topic, Key: d.OrderID, Sequence: sequence, Payload: payload,
		Headers: []outbox.Header{
			{Key: "ce_specversion", Value: "1.0"},
			{Key: "ce_id", Value: id},
			{Key: "ce_type", Value: string(t)},
			{Key: "ce_source", Value: payment.EventSource},
			{Key: "ce_subject", Value: d.PaymentID},
			{Key: "ce_time", Value: at.UTC().Format(time.RFC3339Nano)},
			{Key: "ce_sequence", Value: strconv.FormatInt(sequence, 10)},
			{Key: "content-type", Value: "application/json"},
		},
	})
}
