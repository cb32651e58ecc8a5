package order_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
)

// A client repeats its capture (the first answer was lost, or two of the merchant's
// processes ask) while the worker commits what the capture came to.
func TestARepeatedCaptureWhileThePaymentSucceedsIsAccepted(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, id)) })

	free := w.hot()
	var all sync.WaitGroup
	all.Go(w.settle) // captures at the bank, and then waits in its commit for the article
	w.awaitWaiters(1)
	var repeated error
	all.Go(func() { repeated = second(w.orders.Capture(t.Context(), w.merchant, id)) })
	w.awaitWaiters(2)
	free()
	all.Wait()
	if repeated != nil {
		e := refusal(t, repeated)
		t.Errorf("the payment is %s, the bank did %v, and the repeated capture was refused: %s %q, allowed_actions %v",
			w.status(id), w.ledger(id), e.Code, e.Message, e.Allowed)
	}
	w.audited()
}

// The same without any lock of the test's: merchants that repeat without a pause.
func TestACaptureThatIsRepeatedWithoutPauseIsNeverRefused(t *testing.T) {
	w := newWorld(t)
	const n = 20
	var ids []string
	for range n {
		ids = append(ids, w.placed("pm_card_visa", payment.CaptureManual))
	}
	w.settle()
	var mu sync.Mutex
	wrong := map[string]int{}
	var all sync.WaitGroup
	done := make(chan struct{})
	for _, id := range ids {
		all.Go(func() {
			for {
				if _, err := w.orders.Capture(t.Context(), w.merchant, id); err != nil {
					text := fmt.Sprint("? ", err)
					if e, ok := errors.AsType[*payment.Error](err); ok {
						text = e.Message
					}
					mu.Lock()
					wrong[id+": "+text]++
					mu.Unlock()
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	w.settle()
	close(done)
	all.Wait()
	for refused, times := range wrong {
		t.Errorf("%d times: %s", times, refused)
	}
	w.audited()
}

// during runs ask while the worker commits the payment's success: once its commit waits for
// the article, ask is begun, and once ask waits too, the article is free.
func (w *world) during(ask func() error) error {
	w.t.Helper()
	var asked error
	done := make(chan struct{})
	w.crash = func(point, step string) bool {
		if point != "called" || step != "capture_payment" {
			return false
		}
		w.crash = nil
		free := w.hot()
		go func() {
			defer close(done)
			w.awaitWaiters(1)
			var both sync.WaitGroup
			both.Go(func() { asked = ask() })
			w.awaitWaiters(2)
			free()
			both.Wait()
		}()
		return false
	}
	w.settle()
	<-done
	return asked
}

func TestACancelWhileThePaymentSucceedsNamesTheRefund(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	e := refusal(t, w.during(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, id)) }))
	if s := w.status(id); s != "succeeded" || !slices.Equal(e.Allowed, []string{"refund"}) {
		t.Errorf("the payment is %s; %s %q, allowed_actions %v, want [refund]", s, e.Code, e.Message, e.Allowed)
	}
	w.audited()
}

func TestARefundWhileThePaymentSucceedsIsTaken(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	if err := w.during(func() error { return second(w.refund(t.Context(), id, nil)) }); err != nil {
		t.Errorf("the payment is %s, and its refund was refused: %v", w.status(id), err)
	}
	w.settle()
	w.audited()
}

// What is refused names the actions that would be taken now, and no others.
func TestARefusalNamesTheActionsThatWouldBeTaken(t *testing.T) {
	for name, c := range map[string]struct {
		capture payment.CaptureMethod
		before  func(w *world, id string)
		refused string
		allowed []string
	}{
		"a refund before the authorization": {"", func(*world, string) {}, "refund", []string{"cancel"}},
		"a capture of an automatic payment": {"", func(*world, string) {}, "capture", []string{"cancel"}},
		"a refund of what can be captured":  {payment.CaptureManual, func(w *world, _ string) { w.settle() }, "refund", []string{"cancel", "capture"}},
		"a refund of what is being canceled": {payment.CaptureManual, func(w *world, id string) {
			w.settle()
			w.change(func() error { return second(w.orders.Cancel(w.t.Context(), w.merchant, id)) })
		}, "refund", []string{"cancel"}}, // asked again, it does nothing
		"a capture of what is being canceled": {payment.CaptureManual, func(w *world, id string) {
			w.settle()
			w.change(func() error { return second(w.orders.Cancel(w.t.Context(), w.merchant, id)) })
		}, "capture", []string{}},
		"a cancel while the capture's answer is unknown": {"", func(w *world, _ string) {
			w.fault(`{"kind": "outage", "operation": "capture", "seconds": 600}`)
			w.until(`step <> 'capture_payment'`)
			w.pumpUntil(`SELECT count(*) FROM sagas WHERE step = 'capture_payment' AND attempted`)
		}, "cancel", []string{}},
		"a refund while the capture's answer is unknown": {"", func(w *world, _ string) {
			w.fault(`{"kind": "outage", "operation": "capture", "seconds": 600}`)
			w.until(`step <> 'capture_payment'`)
			w.pumpUntil(`SELECT count(*) FROM sagas WHERE step = 'capture_payment' AND attempted`)
		}, "refund", []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			id := w.placed("pm_card_visa", c.capture)
			c.before(w, id)
			var err error
			switch c.refused {
			case "refund":
				_, err = w.refund(t.Context(), id, nil)
			case "capture":
				_, err = w.orders.Capture(t.Context(), w.merchant, id)
			default:
				_, err = w.orders.Cancel(t.Context(), w.merchant, id)
			}
			if e := refusal(t, err); e.Code != payment.CodeActionNotAllowed || !slices.Equal(e.Allowed, c.allowed) {
				t.Errorf("%v, allowed %v, want %v", e, e.Allowed, c.allowed)
			}
			w.heal()
			w.settle()
			w.audited()
		})
	}
}

// pumpUntil turns a worker until the query counts something.
func (w *world) pumpUntil(sql string) {
	w.t.Helper()
	worker := w.worker()
	for w.count(sql) == 0 {
		if _, err := worker.RunOnce(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		worker.Drain()
	}
}

// The provider tells of an authorization while its payment fails: the search for what it
// holds begins all the same.
func TestANotificationWhileThePaymentFailsBeginsTheSearch(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	failing, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`SELECT FROM sagas FOR NO KEY UPDATE`,
		`UPDATE sagas SET state = 'compensated', due_at = NULL, abortable = false`,
		`UPDATE orders SET status = 'failed'`,
		`UPDATE payments SET status = 'failed', failure_code = 'deadline_exceeded', failure_step = 'authorize_payment', failure_message = 'x'`,
	} {
		if _, err := failing.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	noticed := make(chan error)
	go func() {
		noticed <- postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
			return w.orders.Notified(t.Context(), tx, provider.Notification{ID: "evt_1", Reference: id, Operation: provider.Authorization})
		})
	}()
	w.awaitWaiters(1)
	if err := failing.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-noticed; err != nil {
		t.Fatal(err)
	}
	if n := w.count(`SELECT count(*) FROM sagas WHERE definition = 'orphan_void'`); n != 1 {
		t.Errorf("%d searches have begun", n)
	}
}
