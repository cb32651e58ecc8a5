package webhook

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// NewInbox makes the consumer's inbox beside the write model, where the endpoints are. An
// event that is older than the ids that the inbox keeps is dropped: whether it was
// delivered, nobody knows any more, and it must not hold up what happens to its order today.
func NewInbox(write *pgxpool.Pool, consumer string, ids payment.Generator, c inbox.Config) (*inbox.Inbox, error) {
	c.DropOld = true
	return inbox.New(write, consumer, NewFanout(ids).Handle, c)
}

// Fanout turns events into deliveries.
type Fanout struct{ ids payment.Generator }

func NewFanout(ids payment.Generator) *Fanout { return &Fanout{ids} }

// clockSlack is how much older than its endpoint an event may look and is delivered all the
// same. Both times are the database's, but it may have moved to a machine with another clock
// in between, and events of an older release have the clock of the process that wrote them.
// While the consumer keeps up nothing depends on it: what happens before there is an endpoint
// has come by then.
const clockSlack = 30 * time.Second

type subscriber struct {
	merchantID, id string
	events         []string
	since          time.Time
	disabled       bool
}

// asksFor tells whether the endpoint is to have the event.
func (s *subscriber) asksFor(e event) bool {
	return !e.at.Before(s.since.Add(-clockSlack)) && (s.events[0] == AllEvents || slices.Contains(s.events, string(e.kind)))
}

// Handle is an inbox.Handler: one delivery for each event and each enabled endpoint that
// asked for it, and for a disabled one a missed event, by a fixed number of statements for
// any number of events. That an endpoint has an event once is the tables' to say.
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
	var due, missed rows
	for _, e := range events {
		for _, s := range subscribers[e.merchantID] {
			switch {
			case !s.asksFor(e):
			case s.disabled:
				missed.add("", s, e)
			default:
				due.add(f.ids.New(payment.PrefixDelivery), s, e)
			}
		}
	}
	if len(missed.ids) > 0 {
		if _, err := tx.Exec(ctx, `
			INSERT INTO webhook_missed (merchant_id, endpoint_id, event_id, event_type, payment_id, body)
			SELECT merchant_id, endpoint_id, event_id, event_type, payment_id, body
			FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
				AS m (merchant_id, id, endpoint_id, event_id, event_type, payment_id, body)
			ON CONFLICT DO NOTHING`, missed.columns()...); err != nil {
			return fmt.Errorf("write missed events: %w", err)
		}
	}
	if len(due.ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO webhook_deliveries (merchant_id, id, endpoint_id, event_id, event_type, payment_id, body)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
		ON CONFLICT (merchant_id, endpoint_id, event_id) DO NOTHING`, due.columns()...); err != nil {
		return fmt.Errorf("write deliveries: %w", err)
	}
	return nil
}

// rows of either table, by column.
type rows struct {
	merchants, ids, endpoints, events, kinds, payments []string
	bodies                                             [][]byte
}

func (r *rows) add(id string, s subscriber, e event) {
	r.merchants, r.ids, r.endpoints = append(r.merchants, s.merchantID), append(r.ids, id), append(r.endpoints, s.id)
	r.events, r.kinds = append(r.events, e.id), append(r.kinds, string(e.kind))
	r.payments, r.bodies = append(r.payments, e.paymentID), append(r.bodies, e.body)
}

func (r *rows) columns() []any {
	return []any{r.merchants, r.ids, r.endpoints, r.events, r.kinds, r.payments, r.bodies}
}

// subscribersOf reads the merchants' endpoints. Those that are disabled are locked until the
// end of the transaction: none is enabled before what it missed can be seen. One that is
// enabled while it is waited for is not among the disabled, and gets deliveries; so does one
// that is disabled only afterwards, whose deliveries wait until it is enabled.
func subscribersOf(ctx context.Context, tx pgx.Tx, merchants []string) (map[string][]subscriber, error) {
	found, err := tx.Query(ctx, `
		WITH disabled AS MATERIALIZED (
			SELECT id FROM webhook_endpoints
			WHERE merchant_id = ANY ($1) AND deleted_at IS NULL AND disabled_at IS NOT NULL ORDER BY id FOR SHARE)
		SELECT merchant_id, id, events, created_at, id IN (SELECT id FROM disabled) FROM webhook_endpoints
		WHERE merchant_id = ANY ($1) AND deleted_at IS NULL ORDER BY id`, merchants)
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	all, err := pgx.CollectRows(found, func(row pgx.CollectableRow) (s subscriber, err error) {
		return s, row.Scan(&s.merchantID, &s.id, &s.events, &s.since, &s.disabled)
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
