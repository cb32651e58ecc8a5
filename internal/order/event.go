package order

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/propagation"

	"payments/internal/outbox"
	"payments/internal/payment"
	"payments/internal/saga"
)

// emit draws the order's next sequence, which locks its row, and appends the event
// with the status that the payment has by now. i is nil outside of a saga.
func (s *Service) emit(ctx context.Context, tx pgx.Tx, i *saga.Instance, t payment.EventType, d payment.EventData) error {
	_, err := s.tell(ctx, tx, i, t, d)
	return err
}

// told is the place of an event in its order, and its time by the database's clock.
type told struct {
	sequence int64
	at       time.Time
}

// tell is emit for those who go on with the event's place. The refund that the
// event is of has the event's time, as readers of events have it.
func (s *Service) tell(ctx context.Context, tx pgx.Tx, i *saga.Instance, t payment.EventType, d payment.EventData) (told, error) {
	trace := traceparent(ctx)
	if i != nil {
		for _, a := range i.Attempts {
			d.Attempts = append(d.Attempts, payment.AttemptData{
				Number: a.Number, Step: a.Step, Call: a.Call, Outcome: string(a.Outcome), Code: a.Code,
				StartedAt: a.StartedAt.UTC(), FinishedAt: a.Finished.UTC(),
			})
		}
		i.Attempts, trace = nil, i.Trace // told once
	}
	refund := ""
	if d.Refund != nil {
		refund = d.Refund.ID
	}
	var e told
	err := tx.QueryRow(ctx, `
		WITH drawn AS (
			UPDATE orders SET sequence = sequence + 1, updated_at = clock_timestamp()
			WHERE merchant_id = $1 AND id = $2 RETURNING sequence, updated_at),
		refund AS (
			UPDATE refunds r SET updated_at = drawn.updated_at,
				created_at = CASE r.status WHEN 'pending' THEN drawn.updated_at ELSE r.created_at END
			FROM drawn WHERE r.merchant_id = $1 AND r.id = $4)
		SELECT drawn.sequence, drawn.updated_at, p.status FROM drawn, payments p WHERE p.merchant_id = $1 AND p.id = $3`,
		d.MerchantID, d.OrderID, d.PaymentID, refund).Scan(&e.sequence, &e.at, &d.Status)
	if err != nil {
		return e, fmt.Errorf("draw the order's sequence: %w", err)
	}
	return e, s.append(ctx, tx, t, e.sequence, e.at, trace, d)
}

// append writes a CloudEvents 1.0 event in Kafka's binary mode (Kafka protocol
// binding 1.0.2): attributes as headers, data as the value.
func (s *Service) append(ctx context.Context, tx pgx.Tx, t payment.EventType, sequence int64, at time.Time, trace string, d payment.EventData) error {
	payload, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t, err)
	}
	id := s.IDs.New(payment.PrefixEvent)
	headers := []outbox.Header{
		{Key: "ce_specversion", Value: "1.0"},
		{Key: "ce_id", Value: id},
		{Key: "ce_type", Value: string(t)},
		{Key: "ce_source", Value: payment.EventSource},
		{Key: "ce_subject", Value: d.PaymentID},
		{Key: "ce_time", Value: at.UTC().Format(time.RFC3339Nano)},
		{Key: "ce_sequence", Value: strconv.FormatInt(sequence, 10)},
		{Key: "content-type", Value: "application/json"},
	}
	if trace != "" {
		headers = append(headers, outbox.Header{Key: "traceparent", Value: trace})
	}
	return outbox.Append(ctx, tx, outbox.Message{
		MerchantID: d.MerchantID, ID: id, Topic: payment.Topic, Key: d.OrderID, Sequence: sequence, Payload: payload, Headers: headers,
	})
}

// traceparent is that of the request or the call that the context is of, by the W3C's
// Trace Context, or "".
func traceparent(ctx context.Context) string {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c["traceparent"]
}

func withTraceparent(ctx context.Context, traceparent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}
