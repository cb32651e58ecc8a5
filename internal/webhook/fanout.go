package webhook

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// Fanout turns events into deliveries.
type Fanout struct{ ids payment.Generator }

func NewFanout(ids payment.Generator) *Fanout { return &Fanout{ids} }

// clockSlack is how far the clock of the process that wrote an event may be
// behind the database's: an endpoint misses nothing that came after it.
const clockSlack = 5 * time.Second

type subscriber struct {
	merchantID, id string
	events         []string
	since          time.Time
}

// Handle is an inbox.Handler: one delivery for each event and each enabled
// endpoint that asked for it and is older than it, by two statements for any
// number of events. That an endpoint has an event once is the table's to say.
func (f *Fanout) Handle(ctx context.Context, tx pgx.Tx, batch []inbox.Message) error {
	events := make([]event, len(batch))
	merchants := make([]string, len(batch))
	for i, m := range batch {
		var err error
		if events[i], err = decode(m); err != nil {
			return inbox.Permanent(fmt.Errorf("read event: %w", err))
		}
		merchants[i] = events[i].merchantID
	}
	slices.Sort(merchants)
	subscribers, err := subscribersOf(ctx, tx, slices.Compact(merchants))
	if err != nil {
		return err
	}
	var owners, ids, endpoints, eventIDs, kinds, payments []string
	var bodies [][]byte
	for _, e := range events {
		for _, s := range subscribers[e.merchantID] {
			if e.at.Before(s.since.Add(-clockSlack)) || s.events[0] != AllEvents && !slices.Contains(s.events, string(e.kind)) {
				continue
			}
			owners, ids, endpoints = append(owners, s.merchantID), append(ids, f.ids.New(payment.PrefixDelivery)), append(endpoints, s.id)
			eventIDs, kinds = append(eventIDs, e.id), append(kinds, string(e.kind))
			payments, bodies = append(payments, e.paymentID), append(bodies, e.body)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO webhook_deliveries (merchant_id, id, endpoint_id, event_id, event_type, payment_id, body)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
		ON CONFLICT (merchant_id, endpoint_id, event_id) DO NOTHING`,
		owners, ids, endpoints, eventIDs, kinds, payments, bodies); err != nil {
		return fmt.Errorf("write deliveries: %w", err)
	}
	return nil
}

func subscribersOf(ctx context.Context, tx pgx.Tx, merchants []string) (map[string][]subscriber, error) {
	rows, err := tx.Query(ctx, `
		SELECT merchant_id, id, events, created_at FROM webhook_endpoints
		WHERE merchant_id = ANY ($1) AND deleted_at IS NULL AND disabled_at IS NULL ORDER BY id`, merchants)
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s subscriber, err error) {
		return s, row.Scan(&s.merchantID, &s.id, &s.events, &s.since)
	})
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	by := map[string][]subscriber{}
	for _, s := range all {
		by[s.merchantID] = append(by[s.merchantID], s)
	}
	return by, nil
}
