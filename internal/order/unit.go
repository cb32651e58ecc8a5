package order

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/outbox"
	"payments/internal/payment"
	"payments/internal/saga"
)

// unit is the unit of work of one transaction of one merchant: the rows that it may change.
// They were read after every lock was held, there is one of each key, and each table is
// written once, by queue. Of a payment there is one row only, of the order's id.
type unit struct {
	s          *Service
	tx         pgx.Tx // for what is rare: SQL on other tables than those of the rows below
	merchantID string
	now        time.Time // the database's, when every lock was held

	orders   map[string]*orderRow
	payments map[string]*paymentRow // by the order's id
	refunds  map[string]*refundRow
	baskets  map[string][]*basketRow // by the order's id
	stock    map[string]*stockRow    // by sku
	events   []outbox.Message
}

// orderRow is what changes of an order.
type orderRow struct {
	id, status string
	sequence   int64     // of the newest event
	at         time.Time // of the newest event, if it is of this unit
	changed    bool
}

// paymentRow is a payment: what changes, behind what decides how.
type paymentRow struct {
	id, orderID   string
	captureMethod payment.CaptureMethod
	amount        int64

	status                                   payment.Status
	captured, refunded, refunding            int64
	authorization, capture, account          string // "": none
	failureCode, failureStep, failureMessage string // "": none
	changed                                  bool
}

// refundRow is a refund. The zero time of createdAt is that of the event that tells of it.
type refundRow struct {
	id, paymentID                  string
	amount                         int64
	reason, failureCode, reference string // "": none
	status                         payment.RefundStatus
	createdAt, updatedAt           time.Time
	isNew, changed                 bool
}

// basketRow is what an order wants of an article. state is its reservation's, or "".
type basketRow struct {
	orderID, sku string
	quantity     int64
	state        string
	was          string // state, as it was read
}

// stockRow is what a merchant has of an article, as it was read, and by how much the unit
// changes it.
type stockRow struct {
	sku    string
	onHand int64
	locked bool
	more   movement
}

// movement of an article, in units.
type movement struct{ onHand, reserved, sold int64 }

// plenty is how much more than an order wants there has to be of an article for it to be read
// without its lock. What others take meanwhile is then less by far; if it is not, the commit is
// made again.
const plenty = 10_000

// apart are the times of two events of an order at least, so that each has one of its own.
const apart = time.Microsecond // what the database keeps

// The states of a reservation.
const (
	stockReserved = "reserved"
	stockReleased = "released"
	stockSold     = "sold"
)

// touched is what a unit locks and reads: orders with their payments, for some of the orders
// also the stock of their articles, and refunds.
type touched struct{ orders, stocked, refunds []string }

// Open makes the unit of a commit of the sagas' worker.
func (s *Service) Open(ctx context.Context, tx pgx.Tx, merchantID string, plans []saga.Plan) (saga.Unit, error) {
	var t touched
	for _, plan := range plans {
		d, err := decode(plan.Saga.Data)
		if err != nil {
			return nil, err
		}
		t.orders = append(t.orders, d.OrderID)
		if d.RefundID != "" {
			t.refunds = append(t.refunds, d.RefundID)
		}
		for _, step := range plan.Locals {
			if step == stepReserve || step == stepConfirm || step == undoReserve {
				t.stocked = append(t.stocked, d.OrderID)
			}
		}
	}
	return s.open(ctx, tx, merchantID, t)
}

// open takes the locks of a transaction in the one order that all transactions of this
// package keep, so that none can deadlock: sagas (the caller's), orders by id, which are the
// locks of their payments and refunds too, stock by sku. A statement that locks gives the
// rows as they are after the wait; the other rows are read by later statements. An article of
// which there is plenty is locked when it is written, as the last thing before the commit, so
// that the commits of a busy article hardly wait for each other.
func (s *Service) open(ctx context.Context, tx pgx.Tx, merchantID string, t touched) (*unit, error) {
	u := &unit{
		s: s, tx: tx, merchantID: merchantID,
		orders: map[string]*orderRow{}, payments: map[string]*paymentRow{}, refunds: map[string]*refundRow{},
		baskets: map[string][]*basketRow{}, stock: map[string]*stockRow{},
	}
	var b pgx.Batch // one round trip
	slices.Sort(t.orders)
	t.orders = slices.Compact(t.orders) // sagas of one order
	u.readOrders(&b, t.orders)
	u.readPayments(&b, t.orders)
	if len(t.refunds) > 0 {
		u.readRefunds(&b, t.refunds)
	}
	b.Queue(`SELECT clock_timestamp()`).QueryRow(func(row pgx.Row) error { return row.Scan(&u.now) })
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("lock and read orders: %w", err)
	}
	if len(t.stocked) > 0 {
		slices.Sort(t.stocked)
		if err := u.readStock(ctx, slices.Compact(t.stocked)); err != nil { // a saga may come to two steps that need it
			return nil, err
		}
	}
	return u, nil
}

// placed makes the unit that of orders which its transaction has just inserted, with the event
// of that in events.
func (u *unit) placed(ctx context.Context, now time.Time, all []*placing) error {
	u.now = now
	u.orders, u.payments, u.refunds = map[string]*orderRow{}, map[string]*paymentRow{}, map[string]*refundRow{}
	u.baskets, u.stock = map[string][]*basketRow{}, map[string]*stockRow{}
	var skus []string
	for _, p := range all {
		id, row := p.placed.OrderID, p.rows.payment
		u.orders[id] = &orderRow{id: id, status: orderIsPlaced, sequence: 1, at: now}
		u.payments[id] = &paymentRow{
			id: row.ID, orderID: id, captureMethod: payment.CaptureMethod(row.Capture), amount: row.Amount, status: payment.StatusProcessing,
		}
		bySKU := map[string]*basketRow{}
		for _, l := range p.rows.lines {
			w := bySKU[l.SKU]
			if w == nil {
				w = &basketRow{orderID: id, sku: l.SKU}
				bySKU[l.SKU] = w
				u.baskets[id] = append(u.baskets[id], w)
				skus = append(skus, l.SKU)
			}
			w.quantity += l.Quantity
		}
	}
	slices.Sort(skus)
	return u.readArticles(ctx, slices.Compact(skus))
}

// read queues a query, and keeps each of its rows, of which scan gives the columns.
func read[R any](b *pgx.Batch, keep func(R), scan func(*R) []any, sql string, args ...any) {
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		var r R
		_, err := pgx.ForEachRow(rows, scan(&r), func() error {
			keep(r)
			return nil
		})
		return err
	})
}

// readOrders locks the orders in the order of their ids, which the caller has sorted.
func (u *unit) readOrders(b *pgx.Batch, ids []string) {
	read(b, func(o orderRow) { u.orders[o.id] = &o }, func(o *orderRow) []any { return []any{&o.id, &o.status, &o.sequence} },
		`SELECT o.id, o.status, o.sequence FROM unnest($2::text[]) AS k (id), LATERAL (
			SELECT id, status, sequence FROM orders WHERE merchant_id = $1 AND id = k.id FOR NO KEY UPDATE) o`, u.merchantID, ids)
}

func (u *unit) readPayments(b *pgx.Batch, orders []string) {
	read(b, func(p paymentRow) { u.payments[p.orderID] = &p }, func(p *paymentRow) []any {
		return []any{
			&p.orderID, &p.id, &p.captureMethod, &p.amount, &p.status, &p.captured, &p.refunded, &p.refunding,
			&p.authorization, &p.capture, &p.account, &p.failureCode, &p.failureStep, &p.failureMessage,
		}
	}, `
		SELECT order_id, p.id, capture_method, amount::bigint, status, amount_captured::bigint, amount_refunded::bigint, amount_refunding::bigint,
			coalesce(authorization_reference, ''), coalesce(capture_reference, ''), coalesce(provider_account, ''),
			coalesce(failure_code, ''), coalesce(failure_step, ''), coalesce(failure_message, '')
		FROM unnest($2::text[]) AS k (id), LATERAL (SELECT * FROM payments WHERE merchant_id = $1 AND order_id = k.id OFFSET 0) p`, u.merchantID, orders)
}

func (u *unit) readRefunds(b *pgx.Batch, ids []string) {
	read(b, func(r refundRow) { u.refunds[r.id] = &r }, func(r *refundRow) []any {
		return []any{&r.id, &r.paymentID, &r.amount, &r.reason, &r.failureCode, &r.reference, &r.status, &r.createdAt}
	}, `
		SELECT r.id, payment_id, amount::bigint, coalesce(reason, ''), coalesce(failure_code, ''), coalesce(provider_reference, ''), status, created_at
		FROM unnest($2::text[]) AS k (id), LATERAL (SELECT * FROM refunds WHERE merchant_id = $1 AND id = k.id OFFSET 0) r`, u.merchantID, ids)
}

// readStock reads what the orders want, by each order's lines and reservations. What is in the
// unit already stays as it is.
func (u *unit) readStock(ctx context.Context, orders []string) error {
	var b pgx.Batch
	skus := map[string]bool{}
	read(&b, func(w basketRow) {
		w.was = w.state
		u.baskets[w.orderID] = append(u.baskets[w.orderID], &w)
		skus[w.sku] = true
	}, func(w *basketRow) []any { return []any{&w.orderID, &w.sku, &w.quantity, &w.state} }, `
		SELECT o.id, l.sku, l.quantity, coalesce((
			SELECT state FROM stock_reservations WHERE merchant_id = $1 AND order_id = o.id AND sku = l.sku), '')
		FROM unnest($2::text[]) AS o (id), LATERAL (
			SELECT sku, sum(quantity)::bigint AS quantity FROM order_lines
			WHERE merchant_id = $1 AND order_id = o.id GROUP BY sku) l
		ORDER BY o.id, l.sku`, u.merchantID, orders)
	if err := u.tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("read what orders want: %w", err)
	}
	return u.readArticles(ctx, slices.Sorted(maps.Keys(skus)))
}

// readArticles reads what there is of the articles, which are sorted. If there is not plenty of
// one, all are locked, in that order. So a transaction takes all its locks of articles here or
// all of them in writeStock, and two cannot deadlock.
func (u *unit) readArticles(ctx context.Context, skus []string) error {
	wanted := map[string]int64{}
	for _, basket := range u.baskets {
		for _, w := range basket {
			if w.state == "" {
				wanted[w.sku] += w.quantity
			}
		}
	}
	amounts := func(b *pgx.Batch, skus []string, locked bool, lock string) {
		read(b, func(a stockRow) {
			if a.locked = locked; u.stock[a.sku] == nil {
				u.stock[a.sku] = &a
			}
		}, func(a *stockRow) []any { return []any{&a.sku, &a.onHand} }, `
			SELECT s.sku, s.on_hand FROM unnest($2::text[]) AS k (sku), LATERAL (
				SELECT sku, on_hand FROM stock WHERE merchant_id = $1 AND sku = k.sku `+lock+`) s`, u.merchantID, skus)
	}
	skus = slices.DeleteFunc(skus, func(sku string) bool { return u.stock[sku] != nil })
	var b pgx.Batch
	amounts(&b, skus, false, "OFFSET 0")
	if err := u.tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("read stock: %w", err)
	}
	if !slices.ContainsFunc(skus, func(sku string) bool {
		a := u.stock[sku]
		return a != nil && wanted[sku] > 0 && a.onHand-wanted[sku] < plenty
	}) {
		return nil
	}
	for _, sku := range skus {
		delete(u.stock, sku)
	}
	b = pgx.Batch{}
	amounts(&b, skus, true, "FOR NO KEY UPDATE")
	if err := u.tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("lock stock: %w", err)
	}
	return nil
}

// basket of an order. A step that was not foreseen reads it now; its locks are then out of
// order, and a deadlock would roll the commit back.
func (u *unit) basket(ctx context.Context, orderID string) ([]*basketRow, error) {
	if _, ok := u.baskets[orderID]; !ok {
		if err := u.readStock(ctx, []string{orderID}); err != nil {
			return nil, err
		}
	}
	return u.baskets[orderID], nil
}

// order and its payment. They exist as long as a saga is about them.
func (u *unit) order(id string) (*orderRow, *paymentRow, error) {
	o, p := u.orders[id], u.payments[id]
	if o == nil || p == nil {
		return nil, nil, fmt.Errorf("order %s or its payment is missing", id)
	}
	return o, p, nil
}

// payment of the order, to change.
func (u *unit) payment(orderID string) (*paymentRow, error) {
	_, p, err := u.order(orderID)
	if err != nil {
		return nil, err
	}
	p.changed = true
	return p, nil
}

func (u *unit) refund(id string) (*refundRow, error) {
	r := u.refunds[id]
	if r == nil {
		return nil, fmt.Errorf("refund %s is missing", id)
	}
	return r, nil
}

// emit draws the order's next sequence and adds the event, with the status that the payment
// has by now. i is nil outside of a saga. The refund that the event is of has the event's
// time, as readers of events have it.
func (u *unit) emit(ctx context.Context, i *saga.Instance, t payment.EventType, e payment.EventData) error {
	trace := traceparent(ctx)
	if i != nil {
		for _, a := range i.Attempts {
			e.Attempts = append(e.Attempts, payment.AttemptData{
				Number: a.Number, Step: a.Step, Call: a.Call, Outcome: string(a.Outcome), Code: a.Code,
				StartedAt: a.StartedAt.UTC(), FinishedAt: a.Finished.UTC(),
			})
		}
		trace = i.Trace
	}
	o, p, err := u.order(e.OrderID)
	if err != nil {
		return err
	}
	o.sequence++
	if o.at = o.at.Add(apart); o.at.Before(u.now) {
		o.at = u.now
	}
	o.changed, e.Status = true, p.status
	if e.Refund != nil {
		r, err := u.refund(e.Refund.ID)
		if err != nil {
			return err
		}
		r.updatedAt, r.changed = o.at, true
		if r.createdAt.IsZero() {
			r.createdAt = o.at
		}
	}
	m, err := u.s.message(t, o.sequence, o.at, trace, e)
	if err != nil {
		return err
	}
	u.events = append(u.events, m)
	return nil
}

// message is a CloudEvents 1.0 event in Kafka's binary mode (Kafka protocol binding 1.0.2):
// attributes as headers, data as the value.
func (s *Service) message(t payment.EventType, sequence int64, at time.Time, trace string, e payment.EventData) (outbox.Message, error) {
	payload, err := json.Marshal(e)
	if err != nil {
		return outbox.Message{}, fmt.Errorf("encode %s: %w", t, err)
	}
	id := s.IDs.New(payment.PrefixEvent)
	headers := []outbox.Header{
		{Key: "ce_specversion", Value: "1.0"},
		{Key: "ce_id", Value: id},
		{Key: "ce_type", Value: string(t)},
		{Key: "ce_source", Value: payment.EventSource},
		{Key: "ce_subject", Value: e.PaymentID},
		{Key: "ce_time", Value: at.UTC().Format(time.RFC3339Nano)},
		{Key: "ce_sequence", Value: strconv.FormatInt(sequence, 10)},
		{Key: "content-type", Value: "application/json"},
	}
	if trace != "" {
		headers = append(headers, outbox.Header{Key: "traceparent", Value: trace})
	}
	return outbox.Message{
		MerchantID: e.MerchantID, ID: id, Topic: payment.Topic, Key: e.OrderID, Sequence: sequence, Payload: payload, Headers: headers,
	}, nil
}

// changed gives the rows of a map that have changed, in the order of their keys.
func changed[R any](rows map[string]*R, of func(*R) bool) []*R {
	var list []*R
	for _, key := range slices.SortedFunc(maps.Keys(rows), cmp.Compare[string]) {
		if r := rows[key]; of(r) {
			list = append(list, r)
		}
	}
	return list
}
