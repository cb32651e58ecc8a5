package order_test

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
)

// turnBackUnproven cancels an order while its authorization has no answer, and the
// bank carries it out long after the horizon.
func (w *world) turnBackUnproven(latency string) string {
	w.t.Helper()
	w.fault(`{"kind": "late_applied", "operation": "authorization", "latency_ms": ` + latency + `}`)
	id := w.placed("pm_card_visa", "")
	worker := w.worker()
	for w.count(`SELECT count(*) FROM sagas WHERE resolving`) == 0 {
		if _, err := worker.RunOnce(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		worker.Drain()
	}
	w.change(func() error { return second(w.orders.Cancel(w.t.Context(), w.merchant, id)) })
	w.settle()
	if s := w.status(id); s != "canceled" {
		w.t.Fatalf("the payment is %s", s)
	}
	if got := w.ledger(id); got != nil {
		w.t.Fatalf("the bank was not late: %v", got)
	}
	return id
}

func (w *world) voidedInTheEnd(id string) {
	w.t.Helper()
	if got, want := w.ledger(id), []string{"authorization:succeeded", "void:succeeded"}; !slices.Equal(got, want) {
		w.t.Errorf("the bank did %v, want %v", got, want)
	}
	if events := w.events(id); events[len(events)-1] != "payment.voided" {
		w.t.Errorf("events %v", events)
	}
	w.audited()
}

func TestALateSuccessAfterRollbackIsVoidedByLookup(t *testing.T) {
	w := newWorld(t)
	id := w.turnBackUnproven("1500")
	w.applied(id)
	// The next look of the search is seconds away: bring it here.
	w.exec(`UPDATE sagas SET due_at = now() WHERE definition = 'orphan_void'`)
	w.drain()
	w.voidedInTheEnd(id)
}

// applied waits for the bank's late authorization.
func (w *world) applied(id string) {
	w.t.Helper()
	for len(w.ledger(id)) == 0 {
		select {
		case <-w.t.Context().Done():
			w.t.Fatal("never applied")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestALateSuccessAfterRollbackIsVoidedOnNotification(t *testing.T) {
	w := newWorld(t)
	id := w.turnBackUnproven("1500")
	notify := func() { w.notify(id, w.sagaOf(id)+":authorize_payment") }
	// A lie before it is true starts nothing that holds or takes anything.
	notify()
	worker := w.worker()
	if _, err := worker.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker.Drain()
	if got := w.ledger(id); got != nil {
		t.Fatalf("the bank did %v", got)
	}
	w.applied(id)
	notify()
	w.drain()
	w.voidedInTheEnd(id)
	notify() // late and twice
	w.drain()
	w.voidedInTheEnd(id)
}

func (w *world) notify(id, key string) {
	w.t.Helper()
	err := postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error {
		return w.orders.Notified(w.t.Context(), tx, provider.Notification{Reference: id, Key: key, Operation: provider.Authorization})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// rejectedByHand is a payment that failed since two operators said that its
// authorization was never given; the bank gives it afterwards.
func (w *world) rejectedByHand(latency string) string {
	w.t.Helper()
	w.policy.KeyLifetime = 0
	w.fault(`{"kind": "late_applied", "operation": "authorization", "latency_ms": ` + latency + `}`)
	id := w.placed("pm_card_visa", "")
	w.settle()
	w.policy.KeyLifetime = time.Hour
	never := order.Verdict{Verdict: order.VerdictRejected, Code: "never_given"}
	w.act(ada, w.sagaOf(id), "propose", never, "")
	w.act(grace, w.sagaOf(id), "approve", never, "")
	w.settle()
	if s := w.status(id); s != "failed" {
		w.t.Fatalf("the payment is %s", s)
	}
	if got := w.ledger(id); got != nil {
		w.t.Fatalf("the bank was not late: %v", got)
	}
	return id
}

func TestAnOperatorsWordThatNothingIsHeldIsWatched(t *testing.T) {
	w := newWorld(t)
	id := w.rejectedByHand("2000")
	w.applied(id)
	w.exec(`UPDATE sagas SET due_at = now() WHERE definition = 'orphan_void' AND due_at IS NOT NULL`)
	w.drain()
	w.voidedInTheEnd(id)
}

// A notification that names another key leads to no search for the wrong one, and
// a search that ended in vain is followed by another.
func TestAFalseNotificationDoesNotHideATrueOne(t *testing.T) {
	w := newWorld(t)
	id := w.turnBackUnproven("2000")
	search := `UPDATE sagas SET state = 'compensated', due_at = NULL, owner = NULL WHERE definition = 'orphan_void'`
	w.exec(search) // the watch of the saga itself is over
	w.notify(id, "sag_x:authorize_payment")
	w.exec(search) // and so is that of the first notification
	w.notify(id, "sag_x:authorize_payment")
	w.applied(id)
	w.exec(`UPDATE sagas SET due_at = now() WHERE definition = 'orphan_void' AND due_at IS NOT NULL`)
	worker := w.worker()
	if _, err := worker.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker.Drain()
	w.voidedInTheEnd(id)
}

// Without its search a late authorization would be held for ever.
func TestASearchForALateAuthorizationCannotBeCanceled(t *testing.T) {
	w := newWorld(t)
	id := w.turnBackUnproven("1500")
	w.act(ada, one[string](w, `SELECT id FROM sagas WHERE definition = 'orphan_void'`), "cancel", order.Verdict{}, payment.CodeSagaState)
	w.applied(id)
	w.exec(`UPDATE sagas SET due_at = now() WHERE definition = 'orphan_void'`)
	w.drain()
	w.voidedInTheEnd(id)
}

func TestANotificationMakesResolveHappenSooner(t *testing.T) {
	w := newWorld(t)
	w.policy.Backoff = func(int) time.Duration { return time.Hour } // without news this would not end
	id := w.placed("pm_card_timeout_applied", "")
	worker := w.worker()
	for w.status(id) != "succeeded" {
		if _, err := worker.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		worker.Drain()
		err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
			return w.orders.Notified(t.Context(), tx, provider.Notification{Reference: id, Key: w.sagaOf(id) + ":x", Operation: provider.Capture})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, unknown := range []provider.Notification{
		{Reference: "pay_x", Key: "sag_x:y"}, {Reference: id, Key: ""}, {}, {Reference: "\x00"}, {Reference: id, Key: "\xff\x00:y"},
	} {
		if err := postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error { return w.orders.Notified(t.Context(), tx, unknown) }); err != nil {
			t.Errorf("%+v: %v", unknown, err)
		}
	}
}
