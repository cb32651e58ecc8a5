package order_test

import (
	"context"
	"crypto/rand"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/saga"
)

// begins gives the process a worker, in whose hand orders begin.
func (w *world) begins() *saga.Worker {
	w.t.Helper()
	if _, err := w.orders.LearnAccount(w.t.Context()); err != nil { // as serve's loop does
		w.t.Fatal(err)
	}
	worker := w.worker()
	if _, err := worker.RunOnce(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.hand.Store(worker)
	return worker
}

func TestAnOrderBeginsInTheTransactionThatPlacesIt(t *testing.T) {
	w := newWorld(t)
	worker := w.begins()
	id := w.placed("pm_card_visa", "")
	worker.Drain()
	if s := w.status(id); s != "succeeded" {
		t.Errorf("the payment is %s", s)
	}
	want := []string{"order.placed", "stock.reserved", "payment.authorized", "payment.captured", "order.confirmed"}
	if got := w.events(id); !slices.Equal(got, want) {
		t.Errorf("events: %v", got)
	}
	// No claim was needed, and the events of the reservation and the order have one transaction.
	if got := w.count(`SELECT epoch FROM sagas`); got != 1 {
		t.Errorf("the saga has epoch %d", got)
	}
	if got := w.count(`SELECT count(DISTINCT xmin::text) FROM outbox WHERE sequence IN (1, 2)`); got != 1 {
		t.Errorf("the first two events are of %d transactions", got)
	}
	if got := one[string](w, `SELECT string_agg(step || ' ' || call || ' ' || outcome, ', ' ORDER BY number) FROM saga_attempts`); got != "reserve_stock local succeeded, authorize_payment execute succeeded, capture_payment execute succeeded, confirm_order local succeeded" {
		t.Errorf("attempts: %s", got)
	}
	w.audited()
}

// A payment that is read between its reservation and its authorization.
func TestAnOrderThatHasBegunIsReadAsTheReadModelHasIt(t *testing.T) {
	w := newWorld(t)
	w.dieOnce("call", "authorize_payment")
	worker := w.begins()
	refused, err := w.place(draft{"pm_card_visa", "A-refused", startStock + 1, "", nil})
	if err != nil {
		t.Fatal(err)
	}
	id := w.placed("pm_card_visa", "")
	worker.Drain()
	if got := w.events(id); !slices.Equal(got, []string{"order.placed", "stock.reserved"}) {
		t.Fatalf("events: %v", got)
	}
	if got := w.events(refused); !slices.Equal(got, []string{"order.placed", "stock.rejected", "order.failed"}) {
		t.Fatalf("events: %v", got)
	}
	w.agree()
}

// What has no slot, is refused, or waits for a person or a time ends as it does otherwise, and
// every slot is free again.
func TestOrdersThatDoNotGoOnLeaveTheirSlots(t *testing.T) {
	w := newWorld(t)
	worker := w.begins()
	tooMany, err := w.place(draft{"pm_card_visa", "A-many", startStock + 1, "", nil})
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := w.place(draft{"pm_card_visa", "A-unknown", 1, "", []payment.DraftLine{{SKU: "NOT-THERE", Quantity: 1, UnitAmount: 0}}})
	if err != nil {
		t.Fatal(err)
	}
	o, err := payment.NewOrder(payment.Draft{
		Amount: 2499, Currency: "EUR", PaymentMethod: "pm_card_visa", CustomerReference: "cust-1", OrderReference: "A-replayed",
		Lines: []payment.DraftLine{{SKU: "TSHIRT-M", Quantity: 1, UnitAmount: 2499}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 { // three times the slots
		resp, replayed, err := w.orders.Place(t.Context(), idempotency.Request{MerchantID: w.merchant, Key: "replayed"}, o, rendered)
		if err != nil || replayed != (n > 0) || resp.Status != 202 {
			t.Fatalf("time %d: %+v, %v, %v", n, resp, replayed, err)
		}
		if _, err := w.place(draft{"pm_card_visa", "A-replayed", 1, "", nil}); err == nil {
			t.Fatal("a reference was taken twice")
		}
	}
	held := w.placed("pm_card_visa", payment.CaptureManual)
	worker.Drain()
	w.settle() // a call that the bank answers too late is looked up
	for id, want := range map[string][]string{
		tooMany: {"order.placed", "stock.rejected", "order.failed"}, unknown: {"order.placed", "stock.rejected", "order.failed"},
		held: {"order.placed", "stock.reserved", "payment.authorized"},
	} {
		if got := w.events(id); !slices.Equal(got, want) {
			t.Errorf("events: %v, want %v", got, want)
		}
	}
	if _, err := worker.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	var slots []*saga.Slot
	for s := worker.Reserve(); s != nil; s = worker.Reserve() {
		slots = append(slots, s)
	}
	if len(slots) != 24 {
		t.Errorf("%d of 32 slots are for new sagas, want 24", len(slots))
	}
	late := w.placed("pm_card_visa", "") // there is no slot
	if got := w.count(`SELECT count(*) FROM sagas s JOIN payments p ON p.order_id = s.subject WHERE p.id = $1 AND s.owner IS NULL AND s.epoch = 0 AND s.attempts = 0`, late); got != 1 {
		t.Error("a saga without a slot has begun")
	}
	for _, s := range slots {
		s.Free()
		s.Free()
	}
	w.settle()
	if s := w.status(late); s != "succeeded" {
		t.Errorf("the payment without a slot is %s", s)
	}
	w.audited()
}

// Another transaction keeps an article locked. The order is accepted without its reservation,
// which its saga makes later.
func TestAnOrderOfALockedArticleIsAcceptedWithoutItsReservation(t *testing.T) {
	w := newWorld(t)
	worker := w.begins()
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM stock WHERE merchant_id = $1 FOR UPDATE`, w.merchant); err != nil {
		t.Fatal(err)
	}
	id := w.placed("pm_card_visa", "")
	if got := w.events(id); !slices.Equal(got, []string{"order.placed"}) {
		t.Errorf("events: %v", got)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker.Drain()
	w.settle()
	if s := w.status(id); s != "succeeded" {
		t.Errorf("the payment is %s", s)
	}
	w.audited()
}

// A worker dies at each boundary of a beginning. A client that got no answer asks again, with
// the same key; another worker takes over what was committed.
func TestAWorkerDiesAtEachBoundaryOfABeginning(t *testing.T) {
	w := newWorld(t)
	w.exec(`UPDATE stock SET on_hand = 1000, received = 1000`)
	for _, point := range slices.Concat(saga.StartPoints(), []string{"call", "called", "commit", "committed"}) {
		w.dieOnce(point, "authorize_payment")
		before := w.crashed.Load()
		worker := w.begins()
		payments := map[string]string{}
		var mu sync.Mutex
		var clients sync.WaitGroup
		for method := range ends {
			clients.Go(func() {
				reference, key := "A-"+rand.Text()[:8], rand.Text()
				id, err := w.placeAs(key, draft{method, reference, 1, "", nil})
				if err != nil {
					if id, err = w.placeAs(key, draft{method, reference, 1, "", nil}); err != nil {
						t.Errorf("asked again after a death at %s: %v", point, err)
						return
					}
				}
				mu.Lock()
				defer mu.Unlock()
				payments[id] = method
			})
		}
		clients.Wait()
		worker.Drain()
		w.hand.Store(nil)
		w.exec(`UPDATE sagas SET due_at = now() WHERE owner IS NOT NULL`) // the dead worker's leases end
		w.settle()
		if n := w.crashed.Load() - before; n != 1 {
			t.Errorf("%d deaths at %s", n, point)
		}
		for id, method := range payments {
			if s := w.status(id); s != ends[method] {
				t.Errorf("dead at %s: %s is %s, want %s", point, method, s, ends[method])
			}
		}
	}
	w.crash = nil
	w.drainAwaits()
	w.audited()
}

// The answer to the commit is lost: the saga was begun, and is driven by nobody before its
// lease ends, since nobody here knows that.
func TestABeginningWhoseCommitsAnswerIsLostIsLeftToItsLease(t *testing.T) {
	w := newWorld(t)
	lost := &atomic.Int64{}
	w.config.Pool = w.poolBy(func(conn net.Conn) net.Conn {
		return &lossy{Conn: conn, statement: []byte("stock.reserved"), lost: lost}
	})
	w.orders = order.New(w.config)
	worker := w.begins()
	_, err := w.placeAs("lost", draft{"pm_card_visa", "A-lost", 1, "", nil})
	if err == nil || lost.Load() != 1 {
		t.Fatalf("the answer was not lost: %v", err)
	}
	worker.Drain()
	if got := one[string](w, `SELECT step || ' ' || intent || ' ' || (owner IS NOT NULL) FROM sagas`); got != "authorize_payment true true" {
		t.Errorf("the saga stands at %s", got)
	}
	id, err := w.placeAs("lost", draft{"pm_card_visa", "A-lost", 1, "", nil}) // the client asks again
	if err != nil || len(w.ledger(id)) != 0 {
		t.Fatalf("%v; the bank did %v", err, w.ledger(id))
	}
	w.hand.Store(nil)
	w.exec(`UPDATE sagas SET due_at = now() WHERE owner IS NOT NULL`)
	w.settle()
	if s := w.status(id); s != "succeeded" {
		t.Errorf("the payment is %s", s)
	}
	w.audited()
}

// The process stops when a saga has begun: the intent of its call, which was never made, is
// withdrawn, and the next worker goes on at once.
func TestAStopWithdrawsWhatABeginningIntended(t *testing.T) {
	w := newWorld(t)
	loop, stop := context.WithCancel(t.Context())
	defer stop()
	if _, err := w.orders.LearnAccount(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The stop comes between the commit and the call.
	w.crash = func(point, _ string) bool {
		if point == "started" {
			stop()
		}
		return false
	}
	worker := w.worker()
	if _, err := worker.RunOnce(loop); err != nil {
		t.Fatal(err)
	}
	w.hand.Store(worker)
	id := w.placed("pm_card_visa", "")
	worker.Drain()
	w.hand.Store(nil)
	w.crash = nil
	if got := one[string](w, `SELECT intent || ' ' || attempted || ' ' || (owner IS NULL) || ' ' || (due_at <= now() + interval '1 second') FROM sagas`); got != "false false true true" {
		t.Errorf("after the stop the saga is: %s", got)
	}
	if got := one[string](w, `SELECT string_agg(coalesce(outcome, 'open'), ' ' ORDER BY number) FROM saga_attempts`); got != "succeeded not_sent" {
		t.Errorf("attempts: %s", got)
	}
	w.settle()
	if s := w.status(id); s != "succeeded" {
		t.Errorf("the payment is %s", s)
	}
	if got := w.ledger(id); !slices.Equal(got, []string{"authorization:succeeded", "capture:succeeded"}) {
		t.Errorf("the bank did %v", got)
	}
	w.audited()
}

func rendered(p order.Placed) (idempotency.Response, error) { return answer(p.PaymentID), nil }
