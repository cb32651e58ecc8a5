package order_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider"
)

func refusal(t *testing.T, err error) *payment.Error {
	t.Helper()
	e, ok := errors.AsType[*payment.Error](err)
	if !ok {
		t.Fatalf("got %v, want a refusal", err)
	}
	return e
}

func (w *world) change(do func() error) {
	w.t.Helper()
	if err := do(); err != nil {
		w.t.Fatal(err)
	}
}

// second drops what Cancel and Capture answer with.
func second[T any](_ T, err error) error { return err }

func (w *world) stockIs(onHand, reserved, sold int64) {
	w.t.Helper()
	levels, err := w.orders.Stock(w.t.Context(), w.merchant, order.StockLevel{}, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	want := order.StockLevel{MerchantID: w.merchant, SKU: "TSHIRT-M", OnHand: onHand, Reserved: reserved, Sold: sold}
	if len(levels) != 1 || levels[0] != want {
		w.t.Errorf("stock is %+v, want %+v", levels, want)
	}
}

func TestAManualPaymentWaitsForItsCapture(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	if s := w.status(id); s != "requires_capture" {
		t.Fatalf("after the authorization: %s", s)
	}
	w.stockIs(startStock-2, 2, 0)
	for range 2 { // asked again, it does nothing
		w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, id)) })
	}
	w.settle()
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, id)) })
	if got, want := w.events(id), []string{"order.placed", "stock.reserved", "payment.authorized", "payment.captured", "order.confirmed"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := w.ledger(id); !slices.Equal(got, []string{"authorization:succeeded", "capture:succeeded"}) {
		t.Errorf("the bank did %v", got)
	}
	w.audited()
}

func TestAnUncapturedAuthorizationLapses(t *testing.T) {
	w := newWorld(t)
	w.config.CaptureWindow = 50 * time.Millisecond
	w.orders = order.New(w.config)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.drainAwaits()
	if s := w.status(id); s != "canceled" {
		t.Fatalf("got %s", s)
	}
	if code := one[string](w, `SELECT failure_code FROM payments WHERE id = $1`, id); code != "authorization_expired" {
		t.Errorf("the failure is %s", code)
	}
	if e := refusal(t, second(w.orders.Capture(t.Context(), w.merchant, id))); e.Code != payment.CodeActionNotAllowed || len(e.Allowed) != 0 {
		t.Errorf("a capture after the lapse: %v, allowed %v", e, e.Allowed)
	}
	if got := w.ledger(id); !slices.Equal(got, []string{"authorization:succeeded", "void:succeeded"}) {
		t.Errorf("the bank did %v", got)
	}
	w.stockIs(startStock, 0, 0)
	w.audited()
}

// drainAwaits waits for awaiting sagas as well.
func (w *world) drainAwaits() { w.t.Helper(); w.until(`definition <> 'orphan_void'`) }

func TestCancelTurnsBackBeforeThePivotOnly(t *testing.T) {
	for name, c := range map[string]struct {
		capture payment.CaptureMethod
		before  func(w *world) // the cancellation
		ledger  []string
		events  []string
	}{
		"before anything was done": {
			"", func(*world) {}, nil, []string{"order.placed", "order.canceled"},
		},
		"while it waits for the capture": {
			payment.CaptureManual, func(w *world) { w.settle() }, []string{"authorization:succeeded", "void:succeeded"},
			[]string{"order.placed", "stock.reserved", "payment.authorized", "payment.voided", "stock.released", "order.canceled"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			id := w.placed("pm_card_visa", c.capture)
			c.before(w)
			for range 2 {
				w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, id)) })
			}
			if c.capture == payment.CaptureManual {
				e := refusal(t, second(w.orders.Capture(t.Context(), w.merchant, id)))
				if e.Code != payment.CodeActionNotAllowed || len(e.Allowed) != 0 {
					t.Errorf("a capture after the cancellation: %v", e)
				}
			}
			w.settle()
			w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, id)) })
			if s := w.status(id); s != "canceled" {
				t.Errorf("the payment is %s", s)
			}
			if got := w.ledger(id); !slices.Equal(got, c.ledger) {
				t.Errorf("the bank did %v, want %v", got, c.ledger)
			}
			if got := w.events(id); !slices.Equal(got, c.events) {
				t.Errorf("got %v, want %v", got, c.events)
			}
			w.stockIs(startStock, 0, 0)
			w.audited()
		})
	}
}

func TestCancelAfterThePivotNamesWhatIsAllowed(t *testing.T) {
	w := newWorld(t)
	won, lost := w.placed("pm_card_visa", ""), w.placed("pm_card_declined", "")
	w.settle()
	for id, allowed := range map[string][]string{won: {"refund"}, lost: {}} {
		e := refusal(t, second(w.orders.Cancel(t.Context(), w.merchant, id)))
		if e.Code != payment.CodeActionNotAllowed || !slices.Equal(e.Allowed, allowed) {
			t.Errorf("%v, allowed %v, want %v", e, e.Allowed, allowed)
		}
	}
	other := w.ids.New(payment.PrefixMerchant)
	if e := refusal(t, second(w.orders.Cancel(t.Context(), other, won))); e.Code != payment.CodeNotFound {
		t.Errorf("another merchant's cancellation: %v", e)
	}
}

// A client that asks again, since the first answer was lost, is not told that the
// payment can no longer be canceled while it is being.
func TestACancelAskedAgainOnTheWayBackDoesNothing(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.fault(`{"kind": "outage", "operation": "*", "seconds": 600}`)
	w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, id)) })
	worker := w.worker()
	for w.count(`SELECT count(*) FROM sagas WHERE state = 'compensating'`) == 0 {
		if _, err := worker.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		worker.Drain()
	}
	w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, id)) })
	w.heal()
	w.settle()
	if s := w.status(id); s != "canceled" {
		t.Errorf("the payment is %s", s)
	}
	w.audited()
}

// Whatever the instant of the cancellation, either it is refused and the payment
// succeeds, or it is accepted and nothing is held or taken.
func TestACancelAtAnyInstantIsKeptOrRefused(t *testing.T) {
	steps := []string{"reserve_stock", "authorize_payment", "capture_payment", "confirm_order"}
	for _, at := range []string{"claimed", "committed", "call", "called"} {
		for _, step := range steps {
			t.Run(at+" "+step, func(t *testing.T) {
				w := newWorld(t)
				id := w.placed("pm_card_visa", "")
				var asked bool
				var err error
				w.crash = func(point, s string) bool {
					if point == at && s == step && !asked {
						asked = true
						_, err = w.orders.Cancel(t.Context(), w.merchant, id)
					}
					return false
				}
				w.settle()
				want := "canceled"
				if !asked || err != nil {
					want = "succeeded"
				}
				if asked && err != nil && refusal(t, err).Code != payment.CodeActionNotAllowed {
					t.Fatal(err)
				}
				if s := w.status(id); s != want {
					t.Errorf("asked %v (%v), and the payment is %s", asked, err, s)
				}
				w.audited()
			})
		}
	}
}

func TestAnOrderPastItsDeadlineTurnsBack(t *testing.T) {
	w := newWorld(t)
	w.fault(`{"kind": "outage", "operation": "*", "seconds": 600}`)
	id := w.placed("pm_card_visa", "")
	worker := w.worker()
	runUntil := func(query string, args ...any) {
		t.Helper()
		for w.count(query, args...) == 0 {
			if _, err := worker.RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			worker.Drain()
		}
	}
	runUntil(`SELECT count(*) FROM saga_attempts WHERE step = 'authorize_payment' AND outcome = 'unknown'`)
	w.exec(`UPDATE sagas SET deadline = now(), due_at = now()`)
	before := w.count(`SELECT max(number) FROM saga_attempts`)
	runUntil(`SELECT count(*) FROM saga_attempts WHERE number > $1`, before)
	if s := w.status(id); s != "processing" {
		t.Fatalf("unresolved, and %s", s)
	}
	w.heal()
	w.settle()
	if s, code := w.status(id), one[string](w, `SELECT failure_code FROM payments WHERE id = $1`, id); s != "failed" || code != "deadline_exceeded" {
		t.Errorf("the payment is %s: %s", s, code)
	}
	w.stockIs(startStock, 0, 0)
	w.audited()
}

// refusing is a bank that refuses with the code.
type refusing struct {
	provider.Provider
	code string
}

func (r refusing) Execute(ctx context.Context, op provider.Operation) provider.Result {
	if op.Type != provider.Authorization {
		return r.Provider.Execute(ctx, op)
	}
	return provider.Result{Outcome: provider.Rejected, OperationID: "pi_1", Code: r.code, Message: "The payment was canceled before it was authorized."}
}

// Stripe has that code for a PaymentIntent that somebody canceled in its dashboard.
func TestABanksCancellationIsNotTheMerchants(t *testing.T) {
	w := newWorld(t)
	w.config.Provider = refusing{w.config.Provider, "canceled"}
	w.orders = order.New(w.config)
	id := w.placed("pm_card_visa", "")
	w.settle()
	if got := w.status(id); got != "failed" {
		t.Errorf("a payment that the bank refused and nobody canceled is %s: %v", got, w.events(id))
	}
	w.audited()
}
