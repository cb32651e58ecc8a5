package readmodel

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// Projector applies the events of an order in sequence: the next one moves the
// row and writes a line of the timeline, and one that was applied before changes
// nothing (but writes its line, should that be missing). Another event at a sequence
// that was applied is an inbox.Conflict, and one after a gap an inbox.Gap.
type Projector struct {
	// feeds: its events go into the merchants' feeds. Those of a rebuild have been told,
	// or will be, by the projector itself.
	feeds bool
}

func NewProjector() *Projector { return &Projector{feeds: true} }

// NewInbox makes the projector's consumer of that name. Of the configuration, the
// handler's part is set here.
func (p *Projector) NewInbox(pool *pgxpool.Pool, consumer string, c inbox.Config) (*inbox.Inbox, error) {
	c.Sequenced = true
	if p.feeds {
		c.Finish = p.Finish
	}
	return inbox.New(pool, consumer, p.Handle, c)
}

// Project is Handle and Finish, on a transaction that ends with it.
func (p *Projector) Project(ctx context.Context, tx pgx.Tx, batch []inbox.Message) error {
	if err := p.Handle(ctx, tx, batch); err != nil {
		return err
	}
	return p.Finish(ctx, tx, batch)
}

// Handle is an inbox.Handler. It reads the batch's rows, moves each over all of
// its events in memory, and writes what came of it, with a fixed number of
// statements for any number of events.
func (p *Projector) Handle(ctx context.Context, tx pgx.Tx, batch []inbox.Message) error {
	events := make([]event, len(batch))
	for i, m := range batch {
		batch[i].Left = nil
		var err error
		if events[i], err = decode(m); err != nil {
			return inbox.Permanent(fmt.Errorf("read event: %w", err))
		}
	}
	rows, err := lockRows(ctx, tx, events)
	if err != nil {
		return err
	}
	var next, older []event
	for _, e := range events {
		id := rowID{e.Data.MerchantID, e.Data.PaymentID}
		row := rows[id]
		if row == nil {
			row = &viewRow{MerchantID: id.merchant, PaymentID: id.payment}
			rows[id] = row
		}
		moved, err := row.apply(e)
		if err != nil {
			return fmt.Errorf("apply %s %s at sequence %d: %w", e.Type, e.Data.PaymentID, e.Sequence, err)
		}
		if moved {
			next = append(next, e)
		} else {
			older = append(older, e)
		}
	}
	if err := sameHistory(ctx, tx, next, older); err != nil {
		return err
	}
	return p.write(ctx, tx, rows, next, events, batch)
}

type rowID struct{ merchant, payment string }

// viewRow is a row of payment_view in the part that events change, and, when it
// is made from an event, the rest. Its members' names are those of its columns.
type viewRow struct {
	MerchantID string              `json:"merchant_id"`
	PaymentID  string              `json:"payment_id"`
	OrderID    string              `json:"order_id"`
	Sequence   int64               `json:"sequence"` // 0: there is no row
	Status     string              `json:"status"`
	Failure    *payment.Failure    `json:"failure"`
	Captured   int64               `json:"amount_captured"`
	Refunded   int64               `json:"amount_refunded"`
	Dispute    *payment.Dispute    `json:"dispute"`
	UpdatedAt  time.Time           `json:"updated_at"`
	Placed     *payment.PlacedData `json:"placed,omitempty"`
	CreatedAt  time.Time           `json:"created_at"`

	moved bool
}

// apply is false for an event that the row has had. An event of an unknown type
// tells nothing about the row but that it happened.
func (r *viewRow) apply(e event) (moved bool, err error) {
	switch {
	case r.Sequence > 0 && r.OrderID != e.Data.OrderID:
		return false, inbox.Permanent(fmt.Errorf("event %s of order %s names the payment of order %s", e.ID, e.Data.OrderID, r.OrderID))
	case e.Sequence <= r.Sequence:
		return false, nil
	case e.Sequence > r.Sequence+1: // so that the first is order.placed (check)
		return false, inbox.Gap(fmt.Errorf("gap: event %s has sequence %d and %s is at sequence %d", e.ID, e.Sequence, r.PaymentID, r.Sequence))
	}
	if e.Sequence == 1 {
		if e.Type != payment.EventOrderPlaced { // of an unknown type; check has looked at the others
			return false, inbox.Permanent(fmt.Errorf("event %s has sequence 1 and is no order.placed", e.ID))
		}
		r.OrderID, r.Placed, r.CreatedAt = e.Data.OrderID, e.Data.Placed, e.At
	}
	r.Sequence, r.moved = e.Sequence, true
	if !e.known {
		return true, nil
	}
	r.Status, r.UpdatedAt = string(e.Data.Status), e.At
	switch {
	// Under review may also be a refund, or a hold that came late: the payment has ended, and not failed by it.
	case e.Data.Failure != nil && (e.Type != payment.EventReviewRequired || e.Data.Status == payment.StatusRequiresReview):
		r.Failure = e.Data.Failure
	case e.Data.Failure == nil && e.endsReview():
		r.Failure = nil
	}
	if e.Data.Captured != nil {
		r.Captured = e.Data.Captured.Amount
	}
	switch refund := e.Data.Refund; {
	case refund == nil:
	case refund.Status == payment.RefundSucceeded:
		r.Refunded += refund.Amount
	case refund.Reversed:
		r.Refunded -= refund.Amount
	}
	if e.Data.Dispute != nil {
		r.Dispute = disputeOf(*e.Data.Dispute)
	}
	return true, nil
}

// lockRows reads the rows of the events' payments, by the primary key. They are
// locked in one order, so that two processes cannot deadlock.
func lockRows(ctx context.Context, tx pgx.Tx, events []event) (map[rowID]*viewRow, error) {
	merchants, payments := make([]string, len(events)), make([]string, len(events))
	for i, e := range events {
		merchants[i], payments[i] = e.Data.MerchantID, e.Data.PaymentID
	}
	rows, err := tx.Query(ctx, `
		SELECT v.merchant_id, v.payment_id, v.order_id, v.sequence, v.status, v.failure, v.amount_captured, v.amount_refunded, v.dispute, v.updated_at
		FROM (SELECT * FROM (SELECT DISTINCT m, p FROM unnest($1::text[], $2::text[]) AS u (m, p)) d ORDER BY m COLLATE "C", p COLLATE "C") e, LATERAL (
			SELECT * FROM payment_view WHERE merchant_id = e.m AND payment_id = e.p FOR UPDATE) v`, merchants, payments)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	locked, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*viewRow, error) {
		r := &viewRow{}
		return r, row.Scan(&r.MerchantID, &r.PaymentID, &r.OrderID, &r.Sequence, &r.Status, &r.Failure, &r.Captured, &r.Refunded, &r.Dispute, &r.UpdatedAt)
	})
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	found := make(map[rowID]*viewRow, len(locked))
	for _, r := range locked {
		found[rowID{r.MerchantID, r.PaymentID}] = r
	}
	return found, nil
}

const insertRows = `
	INSERT INTO payment_view (merchant_id, payment_id, order_id, sequence, status, currency, amount, amount_captured, amount_refunded,
		payment_method, payment_method_ciphertext, capture_method, customer_reference, customer_email_ciphertext, order_reference, lines,
		failure, failure_code, dispute, created_at, updated_at)
	SELECT merchant_id, payment_id, order_id, sequence, status, placed->>'currency', (placed->>'amount')::bigint, amount_captured, amount_refunded,
		placed->>'payment_method', decode(placed->>'payment_method_ciphertext', 'base64'), coalesce(placed->>'capture_method', 'automatic'),
		placed #>> '{customer,reference}', decode(placed #>> '{customer,email_ciphertext}', 'base64'), placed->>'reference', (placed->'lines')::jsonb, failure, failure->>'code', dispute, created_at, updated_at
	FROM json_to_recordset($1::json) AS r (merchant_id text, payment_id text, order_id text, sequence bigint, status text,
		amount_captured bigint, amount_refunded bigint, failure jsonb, dispute jsonb, created_at timestamptz, updated_at timestamptz, placed json)
	ON CONFLICT (merchant_id, payment_id) DO NOTHING`

const updateRows = `
	UPDATE payment_view v SET sequence = r.sequence, status = r.status, failure = r.failure, failure_code = r.failure->>'code',
		amount_captured = r.amount_captured, amount_refunded = r.amount_refunded, dispute = r.dispute, updated_at = r.updated_at
	FROM json_to_recordset($1::json) AS r (merchant_id text, payment_id text, sequence bigint, status text,
		amount_captured bigint, amount_refunded bigint, failure jsonb, dispute jsonb, updated_at timestamptz), LATERAL (
		SELECT ctid AS place FROM payment_view WHERE merchant_id = r.merchant_id AND payment_id = r.payment_id OFFSET 0) l -- which lockRows has locked
	WHERE v.ctid = l.place`

// lineData is an event's data as a line of the timeline keeps it: without the
// customer's address and the payment method, of which no line has need.
const lineData = `data #- '{placed,customer,email_ciphertext}' #- '{placed,payment_method}' #- '{placed,payment_method_ciphertext}'`

// insertTimeline keeps the data otherwise as it came, with members that only a later
// version knows. A line that is there already is left: a rebuilt row walks through its
// old timeline.
const insertTimeline = `
	INSERT INTO payment_timeline (merchant_id, payment_id, sequence, event_id, type, data, occurred_at)
	SELECT merchant_id, payment_id, sequence, event_id, type,
		` + lineData + `, occurred_at
	FROM json_to_recordset($1::json) AS e (merchant_id text, payment_id text, sequence bigint, event_id text, type text,
		data jsonb, occurred_at timestamptz)
	ON CONFLICT (merchant_id, payment_id, sequence) DO NOTHING`

type timelineEntry struct {
	MerchantID string            `json:"merchant_id"`
	PaymentID  string            `json:"payment_id"`
	Sequence   int64             `json:"sequence"`
	EventID    string            `json:"event_id"`
	Type       payment.EventType `json:"type"`
	Data       json.RawMessage   `json:"data"`
	OccurredAt time.Time         `json:"occurred_at"`
}

// errRaced: the next attempt will see what the other has written.
var errRaced = errors.New("another process writes the same rows")

// write takes the rows as they are after the events that moved them, and all events
// for the timeline: a row that a rebuild has put further than the consumer stood
// gets the lines of its past as their events come.
func (p *Projector) write(ctx context.Context, tx pgx.Tx, rows map[rowID]*viewRow, moving, events []event, batch []inbox.Message) error {
	var made, moved []*viewRow
	for _, r := range rows {
		switch {
		case !r.moved:
		case r.Placed != nil:
			made = append(made, r)
		default:
			moved = append(moved, r)
		}
	}
	// Whoever inserts the same rows beside this does it in the same order.
	slices.SortFunc(made, func(a, b *viewRow) int { return cmp.Compare(a.PaymentID, b.PaymentID) })
	var timeline []timelineEntry
	at := map[line]int{} // in the batch
	for i, e := range events {
		l := line{e.Data.MerchantID, e.Data.PaymentID, e.Sequence}
		if _, again := at[l]; again {
			continue
		}
		at[l] = i
		timeline = append(timeline, timelineEntry{l.merchantID, l.paymentID, l.sequence, e.ID, e.Type, e.raw, e.At})
	}
	var b pgx.Batch
	all := func(want int) func(pgconn.CommandTag) error {
		return func(tag pgconn.CommandTag) error {
			if int(tag.RowsAffected()) != want {
				return fmt.Errorf("%d of %d rows written: %w", tag.RowsAffected(), want, errRaced)
			}
			return nil
		}
	}
	err := errors.Join(
		queue(&b, insertRows, made, all(len(made))), queue(&b, updateRows, moved, all(len(moved))),
		queue(&b, upsertRefunds, refundsOf(moving), nil), queue(&b, insertTerms, termsOf(made), nil))
	if !p.feeds {
		err = errors.Join(err, queue(&b, insertTimeline, timeline, nil))
	} else if document, merr := json.Marshal(timeline); merr != nil {
		err = errors.Join(err, fmt.Errorf("encode rows: %w", merr))
	} else {
		b.Queue(insertFed, document).Query(leaveLines(batch, at))
	}
	if err != nil {
		return err
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("write %d events: %w", len(events), err)
	}
	return nil
}

// queue sends the rows as one JSON document.
func queue[T any](b *pgx.Batch, sql string, rows []T, check func(pgconn.CommandTag) error) error {
	if len(rows) == 0 {
		return nil
	}
	document, err := json.Marshal(rows)
	if err != nil {
		return fmt.Errorf("encode rows: %w", err)
	}
	if q := b.Queue(sql, document); check != nil {
		q.Exec(check)
	}
	return nil
}
