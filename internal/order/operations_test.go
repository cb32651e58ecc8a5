package order_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"payments/internal/order"
	"payments/internal/payment"
)

var (
	ada   = order.By{Operator: "adas_key", Holder: "ada", Reason: "looked at the bank's statement"}
	grace = order.By{Operator: "graces_key", Holder: "grace", Reason: "checked it too"}
)

func (w *world) act(by order.By, id, act string, verdict order.Verdict, want payment.Code) {
	w.t.Helper()
	err := w.orders.Operations().Act(w.t.Context(), by, id, act, verdict)
	switch {
	case err == nil && want == "":
	case err == nil || want == "" || refusal(w.t, err).Code != want:
		w.t.Fatalf("%s by %s: %v, want %q", act, by.Operator, err, want)
	}
}

// parked is a payment whose void the bank refuses, since somebody captured it there.
func (w *world) parked() (paymentID, sagaID string) {
	w.t.Helper()
	paymentID = w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.requestWith("counter-"+paymentID, "POST", "/v1/captures", `{"reference": "`+paymentID+`", "authorization": "`+
		one[string](w, `SELECT authorization_reference FROM payments WHERE id = $1`, paymentID)+`", "amount": 4998, "currency": "EUR"}`, 201)
	w.change(func() error { return second(w.orders.Cancel(w.t.Context(), w.merchant, paymentID)) })
	w.settle()
	sagaID = w.sagaOf(paymentID)
	if s, state := w.status(paymentID), one[string](w, `SELECT state FROM sagas WHERE id = $1`, sagaID); s != "requires_review" || state != "parked" {
		w.t.Fatalf("the payment is %s, its saga %s", s, state)
	}
	return paymentID, sagaID
}

// givenBack refunds at the bank by hand what was captured there by hand, and gives the
// refund's id.
func (w *world) givenBack(paymentID string) string {
	w.t.Helper()
	var list struct {
		Data []struct{ ID, Type string } `json:"data"`
	}
	if err := json.Unmarshal(w.request(http.MethodGet, "/v1/operations?type=capture&reference="+paymentID, "", http.StatusOK), &list); err != nil || len(list.Data) != 1 {
		w.t.Fatalf("captures %v, %v", list, err)
	}
	var refund struct{ ID string }
	if err := json.Unmarshal(w.requestWith("back-"+paymentID, "POST", "/v1/refunds", `{"reference": "`+paymentID+`", "capture": "`+list.Data[0].ID+
		`", "amount": 4998, "currency": "EUR"}`, 201), &refund); err != nil {
		w.t.Fatal(err)
	}
	return refund.ID
}

func TestACompensationThatCannotFinishIsReviewedByTwo(t *testing.T) {
	w := newWorld(t)
	paymentID, id := w.parked()
	if events := w.events(paymentID); events[len(events)-1] != "payment.review_required" {
		t.Errorf("events %v", events)
	}
	refused := order.Verdict{Verdict: order.VerdictRejected, Code: "captured_by_hand"}
	w.act(ada, id, "approve", refused, payment.CodeSagaState) // nothing is proposed
	w.act(ada, id, "propose", order.Verdict{Verdict: order.VerdictSucceeded}, payment.CodeInvalid)
	w.act(ada, id, "propose", refused, "")
	w.act(ada, id, "approve", refused, payment.CodeSecondOperator)
	w.act(ada, id, "withdraw", order.Verdict{}, "")
	w.act(grace, id, "approve", refused, payment.CodeSagaState) // what was withdrawn
	w.act(ada, id, "propose", refused, "")
	w.act(ada, id, "retry", order.Verdict{}, "") // the saga moves: the proposal is void
	w.settle()
	w.act(grace, id, "approve", refused, payment.CodeSagaState)
	back := w.givenBack(paymentID) // after the retry, which would have found it
	undone := order.Verdict{Verdict: order.VerdictSucceeded, Reference: back}
	w.act(ada, id, "propose", undone, "")
	w.act(grace, id, "approve", undone, "")
	w.settle()
	if s := w.status(paymentID); s != "canceled" {
		t.Errorf("the payment is %s", s)
	}
	f, err := w.orders.Operations().Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var acts []string
	for _, a := range f.Acts {
		acts = append(acts, a.Holder+" "+a.Action)
	}
	if want := []string{"ada propose", "ada withdraw", "ada propose", "ada retry", "ada propose", "grace approve"}; !slices.Equal(acts, want) {
		t.Errorf("kept are %v, want %v", acts, want)
	}
	last := f.Attempts[len(f.Attempts)-2] // before the release of the stock
	if last.Call != "operator" || last.Reference != back || last.Step != "void_authorization" {
		t.Errorf("the attempt is %+v", last)
	}
	w.act(ada, id, "retry", order.Verdict{}, payment.CodeSagaState) // it has ended
	w.act(ada, "sag_x", "retry", order.Verdict{}, payment.CodeNotFound)
	w.stockIs(startStock, 0, 0)
}

// Between the second operator's look and his approval the first proposes something else.
func TestAnApprovalIsOfWhatItsOperatorSaw(t *testing.T) {
	w := newWorld(t)
	paymentID, id := w.parked()
	back := w.givenBack(paymentID)
	seen := order.Verdict{Verdict: order.VerdictRejected, Code: "captured_by_hand"}
	w.act(ada, id, "propose", seen, "")
	for _, instead := range []order.Verdict{
		{Verdict: order.VerdictSucceeded, Reference: back}, {Verdict: order.VerdictRejected, Code: "captured_twice"},
	} {
		w.act(ada, id, "propose", instead, "")
		w.act(grace, id, "approve", seen, payment.CodeSagaState)
	}
	w.act(grace, id, "approve", order.Verdict{}, payment.CodeInvalid)
	w.settle()
	if s := w.status(paymentID); s != "requires_review" {
		t.Errorf("the payment is %s by a verdict that one operator gave", s)
	}
	w.act(ada, id, "propose", order.Verdict{Verdict: order.VerdictSucceeded, Reference: back, Detail: "their ticket 4711"}, "")
	w.act(grace, id, "approve", order.Verdict{Verdict: order.VerdictSucceeded, Reference: back}, "")
	w.settle()
	if s := w.status(paymentID); s != "canceled" {
		t.Errorf("the payment is %s", s)
	}
}

// What put a payment into review is no failure of one that has succeeded since.
func TestAPaymentThatSucceedsAfterAReviewHasNoFailure(t *testing.T) {
	w := newWorld(t)
	w.policy.KeyLifetime = 0
	w.fault(`{"kind": "timeout_lost", "operation": "capture"}`)
	id := w.placed("pm_card_visa", "")
	w.settle()
	failure := func() string {
		return one[string](w, `SELECT coalesce(failure_code, '') FROM payments WHERE id = $1`, id)
	}
	if s, f := w.status(id), failure(); s != "requires_review" || f != "unresolved" {
		t.Fatalf("the payment is %s for %q", s, f)
	}
	w.heal()
	w.policy.KeyLifetime = time.Hour
	w.act(ada, w.sagaOf(id), "retry", order.Verdict{}, "")
	w.settle()
	if s, f := w.status(id), failure(); s != "succeeded" || f != "" {
		t.Errorf("the payment is %s with the failure %q", s, f)
	}
	w.audited()
}

func TestAPausedSagaWaitsForItsResumption(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	sagaID := w.sagaOf(id)
	w.act(ada, sagaID, "resume", order.Verdict{}, payment.CodeSagaState)
	w.act(ada, sagaID, "pause", order.Verdict{}, "")
	w.settle()
	worker := w.worker()
	if _, err := worker.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker.Drain()
	if n := w.count(`SELECT count(*) FROM saga_attempts`); n != 0 {
		t.Errorf("%d attempts of a paused saga", n)
	}
	list, err := w.orders.Operations().List(t.Context(), order.SagaFilter{Paused: true, Limit: 10})
	if err != nil || len(list) != 1 || list[0].ID != sagaID {
		t.Errorf("paused are %v (%v)", list, err)
	}
	w.act(ada, sagaID, "resume", order.Verdict{}, "")
	w.settle()
	if s := w.status(id); s != "succeeded" {
		t.Errorf("the payment is %s", s)
	}
}

// A pause that comes while a worker holds the saga lets it finish what it has in
// hand, and not begin the next step.
func TestAPauseTakesHoldBetweenSteps(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	sagaID := w.sagaOf(id)
	w.crash = func(point, step string) bool {
		if point == "called" && step == "authorize_payment" {
			w.act(ada, sagaID, "pause", order.Verdict{}, "")
		}
		return false
	}
	w.settle()
	if got := w.ledger(id); !slices.Equal(got, []string{"authorization:succeeded"}) {
		t.Errorf("the bank did %v", got)
	}
	w.crash = nil
	w.act(ada, sagaID, "resume", order.Verdict{}, "")
	w.settle()
	if s := w.status(id); s != "succeeded" {
		t.Errorf("the payment is %s", s)
	}
	w.audited()
}

func TestAnOperatorSeesEveryAttempt(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_flaky", "")
	w.settle()
	f, err := w.orders.Operations().Open(t.Context(), w.sagaOf(id))
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	for n, a := range f.Attempts {
		if a.Number != n+1 || a.FinishedAt == nil || a.Epoch < 1 || a.Owner == "" {
			t.Errorf("attempt %+v", a)
		}
		if sent := a.Call == "execute" || a.Call == "lookup"; sent != (len(a.RequestDigest) == 64 && a.IdempotencyKey != "") {
			t.Errorf("attempt %+v", a)
		}
		calls = append(calls, a.Step+" "+a.Call+" "+string(a.Outcome))
	}
	twice := func(step string) []string {
		return []string{
			step + " execute unknown", step + " lookup not_found", step + " execute unknown", step + " lookup not_found", step + " execute succeeded",
		}
	}
	want := slices.Concat([]string{"reserve_stock local succeeded"}, twice("authorize_payment"), twice("capture_payment"), []string{"confirm_order local succeeded"})
	if !slices.Equal(calls, want) {
		t.Errorf("got %q, want %q", calls, want)
	}
}
