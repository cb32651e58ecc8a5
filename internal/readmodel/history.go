package readmodel

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/inbox"
)

// sameHistory refuses an older event when its sequence was another event's. A sequence is
// no identity: when the write database has lost commits whose events were published, by an
// asynchronous failover or a restore to a moment ago, it goes on with the same sequences
// and other events. next are the events that the batch applies. What the timeline does
// not have tells nothing.
func sameHistory(ctx context.Context, tx pgx.Tx, next, older []event) error {
	if len(older) == 0 {
		return nil
	}
	ids := map[line]string{}
	for _, e := range next {
		ids[line{e.Data.MerchantID, e.Data.PaymentID, e.Sequence}] = e.ID
	}
	var merchants, payments []string
	var sequences []int64
	for _, e := range older {
		merchants, payments, sequences = append(merchants, e.Data.MerchantID), append(payments, e.Data.PaymentID), append(sequences, e.Sequence)
	}
	rows, err := tx.Query(ctx, `
		SELECT t.merchant_id, t.payment_id, t.sequence, t.event_id FROM payment_timeline t
		WHERE (t.merchant_id, t.payment_id, t.sequence) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]))`, merchants, payments, sequences)
	if err != nil {
		return fmt.Errorf("read the timeline: %w", err)
	}
	var l line
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&l.merchantID, &l.paymentID, &l.sequence, &id}, func() error {
		ids[l] = id
		return nil
	}); err != nil {
		return fmt.Errorf("read the timeline: %w", err)
	}
	for _, e := range older {
		l := line{e.Data.MerchantID, e.Data.PaymentID, e.Sequence}
		if applied, ok := ids[l]; ok && applied != e.ID {
			return inbox.Conflict(fmt.Errorf("two histories: %s has applied event %s at sequence %d, and %s %s has the same sequence",
				l.paymentID, applied, l.sequence, e.Type, e.ID))
		}
		ids[l] = e.ID
	}
	return nil
}
