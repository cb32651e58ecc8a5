package order_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v85"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider/stripe/stripetest"
)

func succeeded(reference string) order.Verdict {
	return order.Verdict{Verdict: order.VerdictSucceeded, Reference: reference}
}

func rejected(code string) order.Verdict {
	return order.Verdict{Verdict: order.VerdictRejected, Code: code}
}

// untrue sees a verdict refused for a field's code, by the one who proposes it.
func (w *world) untrue(id string, v order.Verdict, code string) {
	w.t.Helper()
	err := w.orders.Operations().Act(w.t.Context(), ada, id, "propose", v)
	if err == nil {
		w.t.Errorf("%+v is accepted, want %s", v, code)
		return
	}
	if e := refusal(w.t, err); e.Code != payment.CodeInvalid || len(e.Fields) != 1 || e.Fields[0].Code != code {
		w.t.Errorf("%+v: %+v, want %s", v, e, code)
	}
}

// bothSay gives a verdict of two operators.
func (w *world) bothSay(id string, v order.Verdict) {
	w.t.Helper()
	w.act(ada, id, "propose", v, "")
	w.act(grace, id, "approve", v, "")
}

// blindCapture is a payment whose capture was carried out, and neither answered nor found.
func (w *world) blindCapture(s *stripetest.Server) (id string) {
	w.t.Helper()
	w.policy.KeyLifetime = 0
	s.Break(stripetest.LostAnswer("/v1/payment_intents/*/capture"))
	see := s.Break(stripetest.Fault{Method: http.MethodGet, Path: "/v1/payment_intents/pi_*", Status: http.StatusInternalServerError})
	id = w.placed("pm_card_visa", "")
	w.settle()
	if st := w.status(id); st != "requires_review" {
		w.t.Fatal(st, w.events(id))
	}
	w.act(ada, w.sagaOf(id), "propose", succeeded("ch_1"), payment.CodeServiceUnavailable)
	w.act(ada, w.sagaOf(id), "propose", rejected("never"), payment.CodeServiceUnavailable)
	see()
	w.policy.KeyLifetime = time.Hour
	return id
}

// Stripe's dashboard names a capture by its PaymentIntent, and a refund needs its charge.
func TestAVerdictNamesACaptureByItsCharge(t *testing.T) {
	w := newWorld(t)
	s := stripetest.New(t)
	a := s.Account("sk_live_a")
	w.deploy("sk_live_a", s.URL)
	id := w.blindCapture(s)
	intent := one[string](w, `SELECT authorization_reference FROM payments WHERE id = $1`, id)
	w.untrue(w.sagaOf(id), succeeded(intent), "reference_of_another_kind")
	w.untrue(w.sagaOf(id), succeeded("ch_none"), "reference_unknown")
	w.untrue(w.sagaOf(id), rejected("never"), "outcome_contradicted")
	w.bothSay(w.sagaOf(id), succeeded(a.Intents(id)[0].LatestCharge.ID))
	w.settle()
	if st := w.status(id); st != "succeeded" {
		t.Fatal(st)
	}
	if _, err := w.refund(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if r := one[string](w, `SELECT status || ' ' || coalesce(failure_code, '') FROM refunds`); r != "succeeded " {
		t.Errorf("the refund of a payment that is %s and was captured: %s; capture_reference %s", w.status(id), r,
			one[string](w, `SELECT capture_reference FROM payments WHERE id = $1`, id))
	}
}

// A person captured less at the dashboard than the payment is of.
func TestAVerdictIsOfTheWholeAmount(t *testing.T) {
	w := newWorld(t)
	s := stripetest.New(t)
	a := s.Account("sk_live_a")
	w.deploy("sk_live_a", s.URL)
	w.policy.KeyLifetime = 0
	heal := s.Break(stripetest.Fault{Method: http.MethodPost, Path: "/v1/payment_intents/*/capture", Status: http.StatusInternalServerError})
	id := w.placed("pm_card_visa", "")
	w.settle()
	heal()
	w.policy.KeyLifetime = time.Hour
	if st := w.status(id); st != "requires_review" {
		t.Fatal(st)
	}
	i := a.Intents(id)[0]
	a.CaptureOutside(i.ID, 4000)
	w.untrue(w.sagaOf(id), succeeded(i.LatestCharge.ID), "amount_differs")
}

// Two operators agree on an authorization that is another payment's (a line too far in the
// bank's list).
func TestAVerdictDoesNotTakeAnothersMoney(t *testing.T) {
	w := newWorld(t)
	theirs := w.placed("pm_card_visa", payment.CaptureManual) // waits for its capture
	w.settle()
	w.policy.KeyLifetime = 0
	w.fault(`{"kind": "timeout_lost", "operation": "authorization"}`)
	ours := w.placed("pm_card_visa", "")
	w.settle()
	w.heal()
	w.policy.KeyLifetime = time.Hour
	w.untrue(w.sagaOf(ours), succeeded(one[string](w, `SELECT authorization_reference FROM payments WHERE id = $1`, theirs)), "reference_unknown")
	w.bothSay(w.sagaOf(ours), rejected("never_given"))
	w.settle()
	w.audited()
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, theirs)) })
	w.settle()
	if st := w.status(theirs); st != "succeeded" {
		t.Errorf("their own capture: %s", st)
	}
	w.audited()
}

// The same at Stripe, where the id of one payment can be asked for by another.
func TestAVerdictNamesNoOtherPaymentAtStripe(t *testing.T) {
	w := newWorld(t)
	s := stripetest.New(t)
	a := s.Account("sk_live_a")
	w.deploy("sk_live_a", s.URL)
	theirs := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.policy.KeyLifetime = 0
	heal := s.Break(stripetest.Fault{Method: http.MethodPost, Path: "/v1/payment_intents", Status: http.StatusInternalServerError})
	ours := w.placed("pm_card_visa", "")
	w.settle()
	heal()
	w.policy.KeyLifetime = time.Hour
	i := a.Intents(theirs)[0]
	w.untrue(w.sagaOf(ours), succeeded(i.ID), "reference_of_another_payment")
	w.untrue(w.sagaOf(ours), succeeded(i.LatestCharge.ID), "reference_unknown")
	other := s.Account("sk_live_b")
	w.deploy("sk_live_b", s.URL)
	w.act(ada, w.sagaOf(ours), "propose", rejected("never_given"), payment.CodeServiceUnavailable) // without its account
	if n := len(other.Intents("")); n != 0 {
		t.Errorf("the other account has %d", n)
	}
	w.deploy("sk_live_a", s.URL)
	w.bothSay(w.sagaOf(ours), rejected("never_given"))
	w.settle()
	if st := w.status(ours); st != "failed" {
		t.Errorf("ours is %s", st)
	}
}

// A verdict on a void is true once nothing is held and nothing taken.
func TestAVerdictOnAVoid(t *testing.T) {
	w := newWorld(t)
	paymentID, id := w.parked() // the bank has captured it
	authorization := one[string](w, `SELECT authorization_reference FROM payments WHERE id = $1`, paymentID)
	w.untrue(id, succeeded(authorization), "outcome_contradicted")
	back := w.givenBack(paymentID)
	w.untrue(id, succeeded(authorization), "reference_of_another_kind")
	w.bothSay(id, succeeded(back))
	w.settle()
	if st := w.status(paymentID); st != "canceled" {
		t.Errorf("it is %s", st)
	}
	w.audited()
}

// A verdict on a refund names that refund: not another one, and not one that is pending.
func TestAVerdictOnARefund(t *testing.T) {
	w := newWorld(t)
	s := stripetest.New(t)
	a := s.Account("sk_live_a")
	w.deploy("sk_live_a", s.URL)
	id, half := w.placed("pm_card_visa", ""), int64(2000)
	w.settle()
	if _, err := w.refund(t.Context(), id, &half); err != nil {
		t.Fatal(err)
	}
	w.settle()
	charge := a.Intents(id)[0].LatestCharge.ID
	first := a.Refunds(charge)[0].ID
	w.policy.KeyLifetime = 0
	heal := s.Break(stripetest.Fault{Method: http.MethodPost, Path: "/v1/refunds", Status: http.StatusInternalServerError})
	refund, err := w.refund(t.Context(), id, &half)
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	heal()
	w.policy.KeyLifetime = time.Hour
	parked := one[string](w, `SELECT id FROM sagas WHERE subject = $1 AND state = 'parked'`, refund)
	w.untrue(parked, succeeded(first), "reference_of_another_request")
	w.untrue(parked, succeeded(charge), "reference_of_another_kind")
	w.untrue(parked, succeeded(a.RefundOutside(charge, 500)), "amount_differs")
	a.RefundsPend(true)
	byHand := a.RefundOutside(charge, 2000)
	w.untrue(parked, succeeded(byHand), "outcome_contradicted")
	a.SettleRefund(byHand)
	w.bothSay(parked, succeeded(byHand))
	w.settle()
	if st := one[string](w, `SELECT status FROM refunds WHERE id = $1`, refund); st != "succeeded" {
		t.Errorf("the refund is %s", st)
	}
	if got := a.Charge(charge); got.AmountRefunded != 2*half+500 || got.Status != stripe.ChargeStatusSucceeded {
		t.Errorf("the charge: %+v", got)
	}
}

// What two operators agreed on stays until a worker has taken it, whatever else is asked.
func TestARetryKeepsAnApprovedVerdict(t *testing.T) {
	for _, act := range []string{"retry", "resolve"} {
		t.Run(act, func(t *testing.T) {
			w := newWorld(t)
			paymentID, id := w.parked()
			undone := succeeded(w.givenBack(paymentID))
			w.act(ada, id, "pause", order.Verdict{}, "")
			w.bothSay(id, undone)
			w.act(ada, id, act, order.Verdict{}, "")
			w.act(ada, id, "resume", order.Verdict{}, "")
			w.settle()
			if s := w.status(paymentID); s != "canceled" {
				t.Errorf("the payment is %s; its saga %s; its verdict is gone", s, one[string](w, `SELECT state FROM sagas WHERE id = $1`, id))
			}
		})
	}
}
