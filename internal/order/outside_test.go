package order_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider/stripe"
	"payments/internal/provider/stripe/stripetest"
	"payments/internal/provider/webhook"
)

// stripeWorld is a world whose provider is Stripe's stand-in, and hears its webhooks.
type stripeWorld struct {
	*world
	server   *stripetest.Server
	account  *stripetest.Account
	receiver *webhook.Receiver
}

const stripeSecret = "whsec_stand_in"

func newStripeWorld(t *testing.T) *stripeWorld {
	t.Helper()
	w := &stripeWorld{world: newWorld(t)}
	w.server = stripetest.New(t)
	w.account = w.server.Account("sk_test_a")
	w.use("sk_test_a")
	reader, err := stripe.Webhooks([]string{stripeSecret}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w.receiver, err = webhook.NewReceiver(w.pool, webhook.Handler{Matters: w.orders.Matters, Handle: w.orders.Notified}, prometheus.NewRegistry(), reader)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// use deploys the service with another key of Stripe's.
func (w *stripeWorld) use(key string) {
	w.t.Helper()
	c, err := stripe.New(key, stripe.Config{URL: w.server.URL, Timeout: 5 * time.Second, Now: time.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	w.books = c
	w.begin(c)
}

// hear delivers what the account has to tell, and lets everything that follows happen.
func (w *stripeWorld) hear() {
	w.t.Helper()
	for _, n := range w.account.Take() {
		if err := w.receiver.Receive(w.t.Context(), stripe.Name, n.Signed(stripeSecret, time.Now()), n.Body); err != nil {
			w.t.Fatalf("%s: %v", n.Type, err)
		}
	}
	w.settle()
}

// charge is Stripe's id of what was taken for the payment.
func (w *stripeWorld) charge(id string) string {
	return one[string](w.world, `SELECT capture_reference FROM payments WHERE id = $1`, id)
}

func (w *stripeWorld) intent(id string) string {
	return one[string](w.world, `SELECT authorization_reference FROM payments WHERE id = $1`, id)
}

// changes lists what was found at the provider, as kind:state.
func (w *stripeWorld) changes(id string) []string {
	return one[[]string](w.world, `SELECT coalesce(array_agg(kind || ':' || state ORDER BY id), '{}') FROM provider_changes WHERE payment_id = $1`, id)
}

func (w *stripeWorld) wantChanges(id string, want ...string) {
	w.t.Helper()
	if got := w.changes(id); !slices.Equal(got, want) {
		w.t.Errorf("found at the provider: %v, want %v", got, want)
	}
}

func (w *stripeWorld) wantStatus(id, want string) {
	w.t.Helper()
	if got := w.status(id); got != want {
		w.t.Errorf("the payment is %s, want %s; its events are %v", got, want, w.events(id))
	}
}

// agrees fails for each difference that is left, and for each violation of an invariant.
func (w *stripeWorld) agrees(id string) {
	w.t.Helper()
	changes, err := w.orders.Compare(w.t.Context(), w.merchant, id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range changes {
		w.t.Errorf("the provider differs: %s %s %d %s", c.Kind, c.Subject, c.Amount, c.Detail)
	}
	w.audited()
}

// Each change at the provider's side: what becomes of the payment, what an operator is
// shown, and that the books agree with the provider in the end.
func TestEveryChangeAtTheProvidersSide(t *testing.T) {
	for name, walk := range map[string]func(*stripeWorld){
		"a refund fails after it succeeded": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", "")
			w.hear()
			ref, err := w.refund(w.t.Context(), id, nil)
			if err != nil {
				w.t.Fatal(err)
			}
			w.hear()
			w.account.FailRefund(w.account.Refunds(w.charge(id))[0].ID, "lost_or_stolen_card")
			w.hear()
			if refunded, refunding := w.amounts(id); refunded != 0 || refunding != 0 {
				w.t.Errorf("%d are refunded and %d are being refunded", refunded, refunding)
			}
			if got := one[string](w.world, `SELECT status || ' ' || failure_code FROM refunds WHERE id = $1`, ref); got != "failed refund_failed" {
				w.t.Errorf("the refund is %s", got)
			}
			if events := w.events(id); events[len(events)-1] != "refund.failed" {
				w.t.Errorf("events: %v", events)
			}
			w.wantChanges(id, "refund_failed_later:recorded")
			if _, err := w.refund(w.t.Context(), id, nil); err != nil { // the merchant refunds again
				w.t.Fatal(err)
			}
			w.hear()
			if refunded, _ := w.amounts(id); refunded != 4998 || w.account.Refunded() != 4998 {
				w.t.Errorf("%d are refunded, %d at the provider", refunded, w.account.Refunded())
			}
			w.agrees(id)
		},
		"a refund is made outside": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", "")
			w.hear()
			outside := w.account.RefundOutside(w.charge(id), 998)
			w.hear()
			if refunded, _ := w.amounts(id); refunded != 998 {
				w.t.Errorf("%d are refunded", refunded)
			}
			w.wantChanges(id, "refund_outside:open")
			over := int64(4001)
			if _, err := w.refund(w.t.Context(), id, &over); err == nil {
				w.t.Error("more can be refunded than is left")
			}
			w.agrees(id)
			w.account.FailRefund(outside, "declined")
			w.hear()
			if refunded, _ := w.amounts(id); refunded != 0 {
				w.t.Errorf("%d are refunded after the refund failed", refunded)
			}
			w.agrees(id)
		},
		"a capture is made outside, of a payment that waits for it": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", payment.CaptureManual)
			w.hear()
			w.account.CaptureOutside(w.intent(id), 0)
			w.hear()
			w.wantStatus(id, "succeeded")
			w.wantChanges(id, "capture_outside:open")
			if _, err := w.refund(w.t.Context(), id, nil); err != nil { // like any other payment
				w.t.Fatal(err)
			}
			w.hear()
			w.agrees(id)
		},
		"a capture is made outside, and asked for before it is known": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", payment.CaptureManual)
			w.hear()
			w.account.CaptureOutside(w.intent(id), 0)
			w.change(func() error { return second(w.orders.Capture(w.t.Context(), w.merchant, id)) })
			w.settle()
			w.wantStatus(id, "succeeded")
			w.hear()
			w.wantChanges(id, "capture_outside:open")
			w.agrees(id)
		},
		"a capture is made outside, and the merchant cancels": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", payment.CaptureManual)
			w.hear()
			w.account.CaptureOutside(w.intent(id), 0)
			w.change(func() error { return second(w.orders.Cancel(w.t.Context(), w.merchant, id)) })
			w.settle()
			w.wantStatus(id, "requires_review") // the void is refused
			w.act(ada, w.sagaOf(id), "accept_capture", order.Verdict{}, "")
			w.hear()
			w.wantStatus(id, "succeeded")
			w.wantChanges(id, "capture_outside:open")
			w.act(ada, w.sagaOf(id), "accept_capture", order.Verdict{}, payment.CodeSagaState) // it has ended
			w.agrees(id)
		},
		"a part is captured outside": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", payment.CaptureManual)
			w.hear()
			w.account.CaptureOutside(w.intent(id), 1000)
			w.hear()
			w.wantChanges(id, "capture_unfit:open")
			w.change(func() error { return second(w.orders.Cancel(w.t.Context(), w.merchant, id)) })
			w.settle()
			w.wantStatus(id, "requires_review") // the void is refused
			// The operator gives the part back at the provider, and lets the saga try again.
			w.account.RefundOutside(w.account.Intents(id)[0].LatestCharge.ID, 1000)
			w.act(ada, w.sagaOf(id), "retry", order.Verdict{}, "")
			w.hear()
			w.wantStatus(id, "canceled")
			w.wantChanges(id, "capture_unfit:gone")
			w.agrees(id)
		},
		"an authorization is voided outside": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", payment.CaptureManual)
			w.hear()
			w.account.CancelOutside(w.intent(id), "requested_by_customer")
			w.hear()
			w.wantStatus(id, "canceled")
			if code := one[string](w.world, `SELECT failure_code FROM payments WHERE id = $1`, id); code != "authorization_voided" {
				w.t.Errorf("the payment is canceled for %s", code)
			}
			w.wantChanges(id, "void_outside:open")
			w.agrees(id)
		},
		"an authorization expires": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", payment.CaptureManual)
			w.hear()
			w.account.Expire(w.intent(id))
			w.hear()
			w.wantStatus(id, "canceled")
			if code := one[string](w.world, `SELECT failure_code FROM payments WHERE id = $1`, id); code != "authorization_expired" {
				w.t.Errorf("the payment is canceled for %s", code)
			}
			if err := second(w.orders.Capture(w.t.Context(), w.merchant, id)); err == nil {
				w.t.Error("a capture is accepted")
			}
			w.wantChanges(id, "authorization_expired:recorded")
			w.agrees(id)
		},
		"a dispute is opened and lost": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", "")
			w.hear()
			disputed := w.account.OpenDispute(w.charge(id), 0, "fraudulent", time.Now().Add(240*time.Hour))
			w.hear()
			w.wantStatus(id, "succeeded")
			w.wantChanges(id, "disputed:open")
			w.account.CloseDispute(disputed, "lost")
			w.hear()
			events := w.events(id)
			if !slices.Equal(events[len(events)-2:], []string{"dispute.opened", "dispute.closed"}) {
				w.t.Errorf("events: %v", events)
			}
			w.wantChanges(id, "disputed:open")
			w.agrees(id)
		},
		"a dispute is opened and won": func(w *stripeWorld) {
			id := w.placed("pm_card_visa", "")
			w.hear()
			disputed := w.account.OpenDispute(w.charge(id), 1000, "duplicate", time.Now().Add(240*time.Hour))
			w.hear()
			w.account.CloseDispute(disputed, "won")
			w.hear()
			if got := one[string](w.world, `SELECT status || ' ' || amount || ' ' || reason FROM disputes WHERE payment_id = $1`, id); got != "won 1000 duplicate" {
				w.t.Errorf("the dispute is %s", got)
			}
			w.wantChanges(id, "disputed:recorded")
			w.agrees(id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			walk(newStripeWorld(t))
		})
	}
}

// A payment that goes its usual way costs no look: its notifications say what the books
// say, or what a saga has under way.
func TestTheUsualNotificationsCauseNoLook(t *testing.T) {
	w := newStripeWorld(t)
	automatic, manual, canceled := w.placed("pm_card_visa", ""), w.placed("pm_card_visa", payment.CaptureManual), w.placed("pm_card_visa", payment.CaptureManual)
	w.placed("pm_card_chargeCustomerFail", "")
	w.settle()
	w.hear()
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, manual)) })
	w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, canceled)) })
	w.settle()
	if _, err := w.refund(t.Context(), automatic, nil); err != nil {
		t.Fatal(err)
	}
	w.settle()
	told := map[string]bool{}
	for _, n := range w.account.Notifications() {
		told[n.Type] = true
	}
	w.hear()
	w.hear()
	for _, n := range w.account.Notifications() { // and again, delivered by another id
		var event map[string]any
		if err := json.Unmarshal(n.Body, &event); err != nil {
			t.Fatal(err)
		}
		event["id"] = fmt.Sprint(event["id"], "_again")
		n.Body, _ = json.Marshal(event)
		if err := w.receiver.Receive(t.Context(), stripe.Name, n.Signed(stripeSecret, time.Now()), n.Body); err != nil {
			t.Fatal(err)
		}
	}
	if !told["payment_intent.succeeded"] || !told["payment_intent.canceled"] || len(told) < 6 {
		t.Fatalf("Stripe told only of %v", told)
	}
	if n := w.count(`SELECT count(*) FROM sagas WHERE definition = 'inspect_payment'`); n != 0 {
		t.Errorf("%d looks at payments of which nothing was new", n)
	}
	w.agrees(automatic)
}

// Two notifications of one change make one look, and one that comes while a look has its
// answer already makes another.
func TestLooksAreOneAtATime(t *testing.T) {
	w := newStripeWorld(t)
	id := w.placed("pm_card_visa", "")
	w.hear()
	w.account.OpenDispute(w.charge(id), 0, "fraudulent", time.Now().Add(time.Hour))
	for _, n := range w.account.Take() {
		if err := w.receiver.Receive(t.Context(), stripe.Name, n.Signed(stripeSecret, time.Now()), n.Body); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.count(`SELECT count(*) FROM sagas WHERE definition = 'inspect_payment'`); n != 1 {
		t.Errorf("two notifications began %d looks", n)
	}
	w.exec(`UPDATE sagas SET owner = 'a worker' WHERE definition = 'inspect_payment'`)
	n := w.account.Notifications()[len(w.account.Notifications())-1]
	var event map[string]any
	if err := json.Unmarshal(n.Body, &event); err != nil {
		t.Fatal(err)
	}
	event["id"] = "evt_again"
	n.Body, _ = json.Marshal(event)
	if err := w.receiver.Receive(t.Context(), stripe.Name, n.Signed(stripeSecret, time.Now()), n.Body); err != nil {
		t.Fatal(err)
	}
	if n := w.count(`SELECT count(*) FROM sagas WHERE definition = 'inspect_payment'`); n != 2 {
		t.Errorf("there are %d looks, want one more than the one that may have its answer", n)
	}
}
