package order

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/idempotency"
	"payments/internal/outbox"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/saga"
)

const (
	// maxPlacings bounds the orders of one transaction, and so how long it holds what other
	// transactions wait for: an order's reference.
	maxPlacings = 32
	// parallelPlacings are the transactions side by side; each is of another merchant.
	parallelPlacings = 4
	// How long a transaction waits for a reference that another transaction is taking, if it
	// places several orders. An order that is placed alone waits longer: it alone is held up.
	groupWait = 50 * time.Millisecond
	aloneWait = 5 * time.Second
	// Nobody waits for the outcome of a transaction that takes longer.
	placingTime = 10 * time.Second
)

// placing is an order that is to be placed, and what came of it.
type placing struct {
	request idempotency.Request
	render  func(Placed) (idempotency.Response, error)
	placed  Placed
	rows    placedRows
	answer  idempotency.Response // kept if the order is placed
	slot    *saga.Slot           // in which its saga begins; nil: it begins as due

	resp     idempotency.Response
	replayed bool
	err      error
	alone    bool // not placed with the others: nothing was done
}

// Place writes the key, the order, the payment, the saga, the first event and the
// response that render makes, in one transaction; or gives the stored response
// of the request that did so before. Orders of a merchant that come together share a
// transaction. Where this process has a worker with a slot for the order's saga, the transaction
// is also the saga's first commit: the stock is reserved, and the intent to authorize is written.
// Errors: idempotency.ErrInUse and ErrReused; *payment.Error order_in_progress
// or order_already_paid; ctx's, if it ended before a transaction took the order.
func (s *Service) Place(ctx context.Context, r idempotency.Request, o payment.Order,
	render func(Placed) (idempotency.Response, error),
) (resp idempotency.Response, replayed bool, err error) {
	p := &placing{request: r, render: render, placed: Placed{
		PaymentID: s.IDs.New(payment.PrefixPayment), OrderID: s.IDs.New(payment.PrefixOrder), MerchantID: r.MerchantID, Order: o,
	}}
	if p.rows, err = s.rowsOf(ctx, p.placed); err != nil {
		return resp, false, err
	}
	worker := s.Worker()
	if worker != nil {
		p.slot = worker.Reserve()
	}
	begins := p.slot != nil
	defer func() { p.slot.Free() }()
	if err := s.placings.Submit(ctx, r.MerchantID, p); err != nil {
		return resp, false, fmt.Errorf("place order: %w", err)
	}
	if p.alone {
		p.slot.Free() // what it failed for may be the reservation, which the saga makes then
		p.slot, begins = nil, false
		if err := s.tryPlace(ctx, []*placing{p}, aloneWait); err != nil {
			return idempotency.Response{}, false, err
		}
	}
	if p.err == nil && !p.replayed {
		s.Wrote()
		s.Changed() // what could not be reserved has failed by now
		if !begins {
			s.Due()
		}
	}
	return p.resp, p.replayed, p.err
}

// placeAll places the orders, all of one merchant, in one transaction. If that fails, or
// would wait, each is to be placed alone, so that no order fails, or waits, for another.
func (s *Service) placeAll(ctx context.Context, all []*placing) {
	err := s.tryPlace(ctx, all, groupWait)
	if err == nil {
		return
	}
	// After a lost connection nobody knows whether it was committed.
	alone := postgres.Locked(err) || errors.Is(err, saga.ErrOvertaken) || len(all) > 1 && !postgres.Unavailable(err)
	for _, p := range all {
		p.resp, p.replayed, p.err, p.alone = idempotency.Response{}, false, err, alone
	}
}

// tryPlace answers nobody before the commit: an error leaves no order placed.
func (s *Service) tryPlace(ctx context.Context, all []*placing, patience time.Duration) (err error) {
	defer recovered(&err) // no request's own goroutine runs it
	merchantID := all[0].placed.MerchantID
	ctx, cancel := context.WithTimeout(postgres.ForTenant(ctx, merchantID), placingTime)
	defer cancel()
	requests := make([]idempotency.Request, len(all))
	for n, p := range all {
		p.resp, p.replayed, p.err = idempotency.Response{}, false, nil
		requests[n] = p.request
	}
	var started *saga.Started
	var slots []*saga.Slot
	asked := s.IDs.Now()
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		var now time.Time // the order of an order's events is that of their times, so that all have the database's
		if err := tx.QueryRow(ctx, `SELECT clock_timestamp() FROM set_config('lock_timeout', $1, true)`, fmt.Sprint(patience.Milliseconds())).
			Scan(&now); err != nil {
			return fmt.Errorf("bound the wait for locks: %w", err)
		}
		begun, err := idempotency.BeginAll(ctx, tx, requests)
		if err != nil {
			return err
		}
		var fresh []*placing
		for n, p := range all {
			switch {
			case begun[n].Err != nil:
				p.err = begun[n].Err
			case begun[n].Stored != nil:
				p.resp, p.replayed = *begun[n].Stored, true
			default:
				if p.err = s.dated(p, now.UTC()); p.err == nil {
					fresh = append(fresh, p)
				}
			}
		}
		if fresh, err = insertOrders(ctx, tx, merchantID, fresh); err != nil || len(fresh) == 0 {
			return err
		}
		if started, slots, err = s.insertRest(ctx, tx, merchantID, saga.Clock{Database: now, Process: asked}, fresh); err != nil || started == nil {
			return err
		}
		return started.Crash()
	})
	if err == nil && started != nil {
		started.Committed(slots)
	}
	return err
}

// recovered makes an error of a panic in a group's goroutine, where it would end the process.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v", p)
	}
}

// dated makes what depends on the time of the transaction.
func (s *Service) dated(p *placing, now time.Time) (err error) {
	p.placed.CreatedAt, p.rows.order.CreatedAt, p.rows.payment.CreatedAt = now, now, now
	if p.rows.message, err = s.message(payment.EventOrderPlaced, 1, now, p.rows.saga.Trace, p.rows.event); err != nil {
		return err
	}
	if p.answer, err = p.render(p.placed); err != nil {
		return fmt.Errorf("render response: %w", err)
	}
	return nil
}

// The rows of a placed order.
type (
	orderPlaced struct {
		ID        string    `sql:"id text"`
		Reference string    `sql:"reference text"`
		Customer  string    `sql:"customer_reference text"`
		Email     []byte    `sql:"email bytea"`
		Currency  string    `sql:"currency text"`
		Amount    int64     `sql:"amount bigint"`
		Sequence  int64     `sql:"sequence bigint"`
		CreatedAt time.Time `sql:"created_at timestamptz"`
		UpdatedAt time.Time `sql:"updated_at timestamptz"` // the time of the event with the sequence
	}
	linePlaced struct {
		OrderID    string `sql:"order_id text"`
		Line       int16  `sql:"line smallint"`
		SKU        string `sql:"sku text"`
		Quantity   int64  `sql:"quantity bigint"`
		UnitAmount int64  `sql:"unit_amount bigint"`
	}
	paymentPlaced struct {
		ID        string    `sql:"id text"`
		OrderID   string    `sql:"order_id text"`
		Currency  string    `sql:"currency text"`
		Amount    int64     `sql:"amount bigint"`
		Method    string    `sql:"payment_method text"`
		Sealed    []byte    `sql:"payment_method_ciphertext bytea"`
		Capture   string    `sql:"capture_method text"`
		CreatedAt time.Time `sql:"created_at timestamptz"`
	}
	placedRows struct {
		order   orderPlaced
		lines   []linePlaced
		payment paymentPlaced
		saga    saga.Beginning
		event   payment.EventData
		message outbox.Message // of the event
	}
)

// rowsOf encrypts what is secret and makes the rows, outside of any transaction.
func (s *Service) rowsOf(ctx context.Context, p Placed) (r placedRows, err error) {
	o, total := p.Order, p.Order.Total()
	var email []byte
	if o.CustomerEmail() != "" {
		if email, err = s.Cipher.Encrypt([]byte(o.CustomerEmail()), EmailData(p.PaymentID)); err != nil {
			return r, fmt.Errorf("encrypt customer email: %w", err)
		}
	}
	method, sealed, err := s.Methods.Seal(o.PaymentMethod(), p.PaymentID)
	if err != nil {
		return r, fmt.Errorf("seal: %w", err)
	}
	currency := total.Currency().String()
	r.order = orderPlaced{
		ID: p.OrderID, Reference: o.Reference(), Customer: o.CustomerReference(), Email: email,
		Currency: currency, Amount: total.Amount(),
	}
	r.payment = paymentPlaced{
		ID: p.PaymentID, OrderID: p.OrderID, Currency: currency, Amount: total.Amount(), Method: method, Sealed: sealed,
		Capture: string(o.CaptureMethod()),
	}
	data := payment.PlacedData{
		Amount: total.Amount(), Currency: currency, PaymentMethod: method, PaymentMethodCiphertext: sealed, CaptureMethod: o.CaptureMethod(),
		Customer:  payment.Customer{Reference: o.CustomerReference(), EmailCiphertext: email},
		Reference: o.Reference(),
	}
	for n, l := range o.Lines() {
		data.Lines = append(data.Lines, payment.LineData{SKU: l.SKU(), Quantity: l.Quantity(), UnitAmount: l.UnitAmount()})
		r.lines = append(r.lines, linePlaced{OrderID: p.OrderID, Line: int16(n), SKU: l.SKU(), Quantity: l.Quantity(), UnitAmount: l.UnitAmount()})
	}
	state := sagaData{
		MerchantID: p.MerchantID, OrderID: p.OrderID, PaymentID: p.PaymentID,
		Amount: total.Amount(), Currency: currency, PaymentMethod: sealed, CaptureMethod: o.CaptureMethod(),
	}
	raw, err := state.encode()
	if err != nil {
		return r, err
	}
	r.saga = saga.Beginning{Definition: s.automatic(), Begin: saga.Begin{
		MerchantID: p.MerchantID, ID: s.IDs.New(payment.PrefixSaga), Subject: p.OrderID, Trace: traceparent(ctx), Data: raw,
	}}
	if o.CaptureMethod() == payment.CaptureManual {
		r.saga.Definition = s.manual()
	}
	r.event = state.event()
	r.event.Status, r.event.Placed = payment.StatusProcessing, &data
	return r, nil
}

// insertOrders gives those that were inserted, and the others their refusal. The rows are
// written in the order of their reference, so that two transactions cannot deadlock.
func insertOrders(ctx context.Context, tx pgx.Tx, merchantID string, all []*placing) (inserted []*placing, err error) {
	if len(all) == 0 {
		return nil, nil
	}
	all = slices.SortedStableFunc(slices.Values(all), func(a, b *placing) int { return strings.Compare(a.rows.order.Reference, b.rows.order.Reference) })
	rows, byID := make([]orderPlaced, len(all)), map[string]*placing{}
	for n, p := range all {
		p.rows.order.Sequence, p.rows.order.UpdatedAt = newest(p.rows.order.CreatedAt, p.slot != nil)
		rows[n], byID[p.placed.OrderID] = p.rows.order, p
	}
	// orders_one_live_or_won_key is the semantic lock; a live rival's commit is waited for.
	ids, err := tx.Query(ctx, `
		INSERT INTO orders (merchant_id, id, reference, customer_reference, customer_email_ciphertext, currency, amount,
			status, sequence, created_at, updated_at)
		SELECT $1, id, reference, customer_reference, email, currency, amount, 'placed', sequence, created_at, updated_at FROM `+postgres.Unnest[orderPlaced](2)+` v
		ON CONFLICT (merchant_id, reference_key(reference)) WHERE status IN ('placed', 'confirmed') AND NOT reference_repeated DO NOTHING
		RETURNING id`, postgres.Columns(rows, merchantID)...)
	if err != nil {
		return nil, fmt.Errorf("insert orders: %w", err)
	}
	var id string
	if _, err := pgx.ForEachRow(ids, []any{&id}, func() error {
		inserted = append(inserted, byID[id])
		delete(byID, id)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("insert orders: %w", err)
	}
	for _, p := range slices.SortedFunc(maps.Values(byID), func(a, b *placing) int { return strings.Compare(a.placed.OrderID, b.placed.OrderID) }) {
		refusal := referenceTaken(ctx, tx, p.placed)
		if _, known := errors.AsType[*payment.Error](refusal); !known {
			return nil, refusal
		}
		p.err = refusal
	}
	return inserted, nil
}

// newest is the sequence and the time of the newest event of an order that is inserted. Of one whose
// saga begins with it that is the event of the reservation, unless the reservation is refused.
func newest(placed time.Time, begins bool) (sequence int64, at time.Time) {
	if begins {
		return 2, placed.Add(apart)
	}
	return 1, placed
}

// insertRest writes what belongs to inserted orders, a table a statement. It gives the sagas
// that begin with it, and the slots in which they do; nil if there are none.
func (s *Service) insertRest(ctx context.Context, tx pgx.Tx, merchantID string, clock saga.Clock, all []*placing) (*saga.Started, []*saga.Slot, error) {
	var lines []linePlaced
	var payments []paymentPlaced
	var begin, due []saga.Beginning
	var begins []*placing
	var slots []*saga.Slot
	var events []outbox.Message
	var answers []idempotency.Answer
	for _, p := range all {
		lines = append(lines, p.rows.lines...)
		payments, events = append(payments, p.rows.payment), append(events, p.rows.message)
		answers = append(answers, idempotency.Answer{Request: p.request, Response: p.answer})
		if p.slot == nil {
			due = append(due, p.rows.saga)
		} else {
			begin, begins, slots = append(begin, p.rows.saga), append(begins, p), append(slots, p.slot)
		}
	}
	var b pgx.Batch
	queue(&b, merchantID, "order_lines", lines, `
		INSERT INTO order_lines (merchant_id, order_id, line, sku, quantity, unit_amount)
		SELECT $1, order_id, line, sku, quantity, unit_amount FROM `+postgres.Unnest[linePlaced](2)+` v`)
	queue(&b, merchantID, "payments", payments, `
		INSERT INTO payments (merchant_id, id, order_id, status, currency, amount, payment_method, payment_method_ciphertext, capture_method, created_at)
		SELECT $1, id, order_id, 'processing', currency, amount, payment_method, payment_method_ciphertext, capture_method, created_at
		FROM `+postgres.Unnest[paymentPlaced](2)+` v`)
	if len(due) > 0 {
		saga.QueueBegin(&b, merchantID, due...)
	}
	var started *saga.Started
	u := &unit{s: s, tx: tx, merchantID: merchantID, events: events}
	if len(begin) > 0 {
		if err := u.placed(ctx, clock.Database, begins); err != nil {
			return nil, nil, err
		}
		var err error
		if started, err = s.Worker().Start(ctx, u, merchantID, clock, begin); err != nil {
			return nil, nil, fmt.Errorf("begin the orders' sagas: %w", err)
		}
		for _, p := range begins { // most are as they were inserted
			o := u.orders[p.placed.OrderID]
			o.changed = o.status != orderIsPlaced || o.sequence != p.rows.order.Sequence || !o.at.Equal(p.rows.order.UpdatedAt)
		}
		started.Queue(&b)
	}
	if err := idempotency.QueueStore(&b, answers...); err != nil {
		return nil, nil, err
	}
	if err := u.Queue(&b); err != nil { // last, since it locks articles
		return nil, nil, err
	}
	err := tx.SendBatch(ctx, &b).Close()
	switch {
	case errors.Is(err, saga.ErrBegun): // their subjects are new
		return nil, nil, fmt.Errorf("place orders: %w", saga.ErrChanged)
	case err != nil:
		return nil, nil, fmt.Errorf("place orders: %w", err)
	}
	for _, p := range all {
		p.resp = p.answer
	}
	return started, slots, nil
}

// referenceTaken tells a won order from a live one, by orders_one_live_or_won. An order
// from before there were business keys may have the reference in another form: only if
// there is none in this form is it looked for, which reads all of the merchant's orders,
// because row-level security keeps reference_key out of an index's condition.
func referenceTaken(ctx context.Context, tx pgx.Tx, p Placed) error {
	var paid bool
	if err := tx.QueryRow(ctx, `
		SELECT CASE WHEN count(*) > 0 THEN bool_or(status = 'confirmed') ELSE EXISTS (
			SELECT FROM orders WHERE merchant_id = $1 AND status = 'confirmed' AND reference_key(reference) = $2) END
		FROM orders WHERE merchant_id = $1 AND reference = $2 AND status IN ('placed', 'confirmed')`,
		p.MerchantID, p.Order.Reference()).Scan(&paid); err != nil {
		return fmt.Errorf("look for the order's reference: %w", err)
	}
	if paid {
		return payment.Errorf(payment.CodeOrderAlreadyPaid, "This order has been paid already.")
	}
	return payment.Errorf(payment.CodeOrderInProgress, "A payment of this order is in progress.")
}
