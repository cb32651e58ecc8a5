package order_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/saga"
)

// holding is a connection to the database whose first commit is held until it is let go.
type holding struct {
	net.Conn
	held *atomic.Bool
	let  <-chan struct{}
}

func (h *holding) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("commit")) && h.held.CompareAndSwap(false, true) {
		<-h.let
	}
	return h.Conn.Write(b)
}

// holdFirstCommit makes an order service whose first commit is held.
func (w *world) holdFirstCommit() (orders *order.Service, held *atomic.Bool, let func()) {
	w.t.Helper()
	open := make(chan struct{})
	held = &atomic.Bool{}
	pool := w.poolBy(func(conn net.Conn) net.Conn { return &holding{conn, held, open} })
	config := w.config
	config.Pool = pool
	return order.New(config), held, func() { close(open) }
}

// asked is a request for an order, and its answer.
type asked struct {
	key, reference string
	amount         int64

	id       string
	replayed bool
	err      error
}

func (a *asked) place(ctx context.Context, orders *order.Service, merchant string) {
	o, err := payment.NewOrder(payment.Draft{
		Amount: a.amount, Currency: "EUR", PaymentMethod: "pm_card_visa", CustomerReference: "cust-1", OrderReference: a.reference,
		Lines: []payment.DraftLine{{SKU: "TSHIRT-M", Quantity: 1, UnitAmount: a.amount}},
	})
	if err != nil {
		a.err = err
		return
	}
	fingerprint, _ := idempotency.Fingerprint("POST", "/v1/payments", fmt.Appendf(nil, `{"amount": %d, "reference": %q}`, a.amount, a.reference))
	resp, replayed, err := orders.Place(ctx, idempotency.Request{MerchantID: merchant, Key: a.key, Fingerprint: fingerprint}, o,
		func(p order.Placed) (idempotency.Response, error) { return answer(p.PaymentID), nil })
	a.id, a.replayed, a.err = resp.ResourceID, replayed, err
}

func (a *asked) code() payment.Code {
	var refused *payment.Error
	errors.As(a.err, &refused)
	if refused == nil {
		return ""
	}
	return refused.Code
}

// While one commit is under way, the orders of the merchant that come meanwhile share the next
// one, and each gets the answer that it would have got alone.
func TestOrdersThatComeTogetherShareATransaction(t *testing.T) {
	w := newWorld(t)
	orders, held, let := w.holdFirstCommit()
	var all sync.WaitGroup
	ask := func(queued int, a *asked) *asked {
		all.Go(func() { a.place(t.Context(), orders, w.merchant) })
		if queued < 0 {
			w.await("the first commit is held", held.Load)
		} else {
			w.await("it waits", func() bool { return orders.Queued(w.merchant) == queued })
		}
		return a
	}
	first := ask(-1, &asked{key: "k-first", reference: "A-first", amount: 1})
	fresh := []*asked{}
	for n := range 5 {
		fresh = append(fresh, ask(n+1, &asked{key: fmt.Sprint("k-", n), reference: fmt.Sprint("A-", n), amount: 1}))
	}
	again := ask(6, &asked{key: "k-first", reference: "A-first", amount: 1})
	other := ask(7, &asked{key: "k-first", reference: "A-other", amount: 2})
	twice := ask(8, &asked{key: "k-0", reference: "A-0", amount: 1})
	rival := ask(9, &asked{key: "k-rival", reference: "A-1", amount: 1})
	let()
	all.Wait()
	if first.err != nil || !again.replayed || again.id != first.id {
		t.Errorf("first %+v, again %+v", first, again)
	}
	if !errors.Is(other.err, idempotency.ErrReused) || !errors.Is(twice.err, idempotency.ErrInUse) || rival.code() != payment.CodeOrderInProgress {
		t.Errorf("another request under the key: %v; the same at once: %v; a rival: %v", other.err, twice.err, rival.err)
	}
	for _, a := range fresh {
		if a.err != nil || a.replayed || a.id == "" {
			t.Errorf("%+v", a)
		}
	}
	if orders, transactions := w.count(`SELECT count(*) FROM orders`), w.count(`SELECT count(DISTINCT xmin::text) FROM orders`); orders != 6 || transactions != 2 {
		t.Errorf("%d orders were placed in %d transactions, want 6 in 2", orders, transactions)
	}
	if n := w.count(`SELECT count(*) FROM idempotency_keys`); n != 6 {
		t.Errorf("%d answers were kept, want 6", n)
	}
	w.settle()
	w.audited()
}

func TestAPanicWhilePlacingIsAnErrorOfItsGroup(t *testing.T) {
	w := newWorld(t)
	o, err := payment.NewOrder(payment.Draft{
		Amount: 1, Currency: "EUR", PaymentMethod: "pm_card_visa", CustomerReference: "cust-1", OrderReference: "A-1",
		Lines: []payment.DraftLine{{SKU: "TSHIRT-M", Quantity: 1, UnitAmount: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	request := idempotency.Request{MerchantID: w.merchant, Key: "k-1"}
	if _, _, err := w.orders.Place(t.Context(), request, o, func(order.Placed) (idempotency.Response, error) { panic("no answer") }); err == nil {
		t.Error("it was placed")
	}
	if n := w.count(`SELECT count(*) FROM orders`); n != 0 {
		t.Errorf("%d orders", n)
	}
	if _, _, err := w.orders.Place(t.Context(), request, o, func(p order.Placed) (idempotency.Response, error) { return answer(p.PaymentID), nil }); err != nil {
		t.Error(err)
	}
}

// A reference that another transaction is taking holds up the one order that wants it.
func TestAReferenceInTheMakingHoldsUpNoOtherOrder(t *testing.T) {
	w := newWorld(t)
	rival, err := w.pool.Begin(t.Context())
	if err == nil {
		_, err = rival.Exec(t.Context(), `
			INSERT INTO orders (merchant_id, id, reference, customer_reference, currency, amount, status, sequence, created_at)
			VALUES ($1, 'ord_01m8702cvkfsptbb1vxcrddz73', 'A-hot', 'cust-1', 'EUR', 1, 'placed', 1, now())`, w.merchant)
	}
	if err != nil {
		t.Fatal(err)
	}
	hot := &asked{key: "k-hot", reference: "A-hot", amount: 1}
	done := make(chan struct{})
	go func() { defer close(done); hot.place(t.Context(), w.orders, w.merchant) }()
	w.awaitWaiters(1)
	for n := range 3 {
		a := &asked{key: fmt.Sprint("k-", n), reference: fmt.Sprint("A-", n), amount: 1}
		if a.place(t.Context(), w.orders, w.merchant); a.err != nil {
			t.Error(a.err)
		}
	}
	select {
	case <-done:
		t.Errorf("the order whose reference is taken did not wait: %v", hot.err)
	default:
	}
	if err := rival.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if <-done; hot.err != nil {
		t.Error(hot.err)
	}
}

func TestANotificationMattersWhereItCanHaveAnEffect(t *testing.T) {
	w := newWorld(t)
	done := w.placed("pm_card_visa", "")
	w.settle()
	declined := w.placed("pm_card_declined", "")
	w.settle()
	held := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.fault(`{"kind": "outage", "operation": "authorization", "seconds": 600}`)
	unclear := w.placed("pm_card_visa", "")
	worker := w.worker()
	w.await("the outcome is unclear", func() bool {
		if _, err := worker.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		worker.Drain()
		return w.count(`SELECT count(*) FROM sagas WHERE resolving AND owner IS NULL AND due_at > now()`) == 1
	})
	w.exec(`UPDATE sagas SET due_at = now() + interval '1 hour' WHERE resolving`)
	key := func(id, step string) string { return saga.Key(w.sagaOf(id), step) }
	for name, c := range map[string]struct {
		want bool
		provider.Notification
	}{
		"the authorization of a payment that succeeded": {false, provider.Notification{Reference: done, Operation: provider.Authorization, Key: key(done, "authorize_payment")}},
		"its capture":                {false, provider.Notification{Reference: done, Operation: provider.Capture, Key: key(done, "capture_payment")}},
		"a capture without a key":    {true, provider.Notification{Reference: done, Operation: provider.Capture}},
		"a capture of another saga":  {true, provider.Notification{Reference: done, Operation: provider.Capture, Key: key(held, "capture_payment")}},
		"a refund":                   {true, provider.Notification{Reference: done, Operation: provider.Refund, Key: key(done, "refund_payment")}},
		"a decline that is known":    {false, provider.Notification{Reference: declined, Operation: provider.Authorization, Declined: true, Key: key(declined, "authorize_payment")}},
		"an authorization after all": {true, provider.Notification{Reference: declined, Operation: provider.Authorization, Key: key(declined, "authorize_payment")}},
		"the authorization of a payment that waits for its capture": {false, provider.Notification{Reference: held, Operation: provider.Authorization, Key: key(held, "authorize_payment")}},
		"what a saga waits to look up":                              {true, provider.Notification{Reference: unclear, Operation: provider.Authorization, Key: key(unclear, "authorize_payment")}},
		"a payment that is not ours":                                {false, provider.Notification{Reference: "pay_01m8702d2wf7gas9ey3ecx0b6m", Operation: provider.Capture, Key: key(done, "capture_payment")}},
		"a reference of another form":                               {true, provider.Notification{Reference: "order 7", Operation: provider.Capture, Key: key(done, "capture_payment")}},
	} {
		got, err := w.orders.Matters(t.Context(), c.Notification)
		if err != nil || got != c.want {
			t.Errorf("%s: %t (%v), want %t", name, got, err, c.want)
		}
	}
}

// A commit that writes fewer rows than it changed in memory must not take effect.
func TestARowThatIsMissingFailsItsCommit(t *testing.T) {
	w := newWorld(t)
	err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
		return order.WriteOrder(t.Context(), tx, w.merchant, w.ids.New(payment.PrefixOrder))
	})
	if err == nil || !strings.Contains(err.Error(), "0 rows of orders were written, not 1") {
		t.Errorf("%v", err)
	}
}
