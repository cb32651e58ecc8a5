package test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"payments/client"
)

// The walk of docs/walk.md, and what it does not show: that another merchant sees
// nothing of it.
func TestWalk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	s := w.serve(nil)

	won := w.paid(s, "walk-1", order("A-1", "pm_card_visa"))
	if won.Status != "succeeded" || won.Amount != 4998 || won.AmountCaptured != 4998 || won.Failure != nil {
		t.Errorf("paid with pm_card_visa: %+v", won)
	}
	if got, want := w.ledger(won.ID), []string{"authorization succeeded", "capture succeeded"}; !slices.Equal(got, want) {
		t.Errorf("the bank's ledger has %v, want %v", got, want)
	}

	type level struct {
		SKU                    string
		OnHand, Reserved, Sold int64
	}
	stock := func() (l level) {
		t.Helper()
		l.SKU = "TSHIRT-M"
		if err := w.scan(`SELECT on_hand, reserved, sold FROM stock JOIN merchants ON id = merchant_id WHERE name = 'Demo shop' AND sku = $1`,
			[]any{l.SKU}, &l.OnHand, &l.Reserved, &l.Sold); err != nil {
			t.Fatal(err)
		}
		return l
	}
	before := stock()
	if before != (level{"TSHIRT-M", 999_998, 0, 2}) {
		t.Errorf("after two shirts were sold: %+v", before)
	}
	for method, want := range map[string]struct {
		failure, step string
		ledger        []string
	}{
		"pm_card_declined":         {"card_declined", "authorize_payment", []string{"authorization declined"}},
		"pm_card_capture_declined": {"capture_declined", "capture_payment", []string{"authorization succeeded", "capture declined", "void succeeded"}},
	} {
		lost := w.paid(s, "walk-"+method, order("A-"+method, method))
		if lost.Status != "failed" || lost.AmountCaptured != 0 || lost.Failure == nil || lost.Failure.Code != want.failure || lost.Failure.Step != want.step {
			t.Errorf("paid with %s: %+v", method, lost)
		}
		if got := w.ledger(lost.ID); !slices.Equal(got, want.ledger) {
			t.Errorf("after %s the bank's ledger has %v, want %v", method, got, want.ledger)
		}
	}
	if diff := cmp.Diff(before, stock()); diff != "" {
		t.Errorf("the stock of declined payments did not come back: %s", diff)
	}

	w.walkKeys(s, won)
	w.walkQueries(s, won)
	w.audited()
}

// walkKeys repeats walk-1, in all the ways that the contract tells apart.
func (w *world) walkKeys(s *service, won client.Payment) {
	w.t.Helper()
	var answers []answer
	for range 2 {
		a, err := w.post(s, `"walk-1"`, order("A-1", "pm_card_visa"), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		answers = append(answers, a)
		if a.status != http.StatusAccepted || a.header.Get("Idempotent-Replayed") != "true" ||
			a.header.Get("Location") != "/v1/payments/"+won.ID || decode[client.Payment](w.t, a).Status != client.PaymentStatusProcessing {
			w.t.Errorf("replay: %d %v %s", a.status, a.header, a.body)
		}
	}
	if !bytes.Equal(answers[0].body, answers[1].body) {
		w.t.Errorf("replays differ:\n%s\n%s", answers[0].body, answers[1].body)
	}
	again := w.paid(s, "walk-1", order("A-1", "pm_card_visa"))
	if diff := cmp.Diff(won, again); diff != "" {
		w.t.Errorf("the replay that waits shows another outcome: %s", diff)
	}
	for _, c := range []struct {
		about, key string
		request    client.PaymentRequest
		code       client.ProblemCode
		status     int
	}{
		{"another body under the key", "walk-1", order("A-2", "pm_card_visa"), "idempotency_key_reused", http.StatusUnprocessableEntity},
		{"no key", "", order("A-3", "pm_card_visa"), "idempotency_key_missing", http.StatusBadRequest},
		{"the paid order under another key", "walk-2", order("A-1", "pm_card_visa"), "order_already_paid", http.StatusConflict},
	} {
		a, err := w.post(s, c.key, c.request, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		if p := decode[client.Problem](w.t, a); a.status != c.status || p.Code != c.code || p.RequestID == "" ||
			p.RequestID != a.header.Get("Request-Id") || a.header.Get("Content-Type") != "application/problem+json" {
			w.t.Errorf("%s: %d %s", c.about, a.status, a.body)
		}
	}
	// The declined order may be paid by another card.
	if p := w.paid(s, "walk-3", order("A-pm_card_declined", "pm_card_visa")); p.Status != "succeeded" {
		w.t.Errorf("a failed order, paid again: %+v", p)
	}
}

func (w *world) walkQueries(s *service, won client.Payment) {
	w.t.Helper()
	c := w.merchant(s)
	if diff := cmp.Diff(won, w.payment(s, won.ID)); diff != "" {
		w.t.Errorf("GET one: %s", diff)
	}
	timeline, err := c.GetPaymentTimeline(w.t.Context(), won.ID, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var types []client.EventType
	for i, e := range timeline.Value.Data {
		types = append(types, e.Type)
		if e.Sequence != int64(i+1) || len(e.Attempts) == 0 && i > 0 {
			w.t.Errorf("entry %d of the timeline: %+v", i+1, e)
		}
	}
	if want := []client.EventType{"order.placed", "stock.reserved", "payment.authorized", "payment.captured", "order.confirmed"}; !slices.Equal(types, want) {
		w.t.Errorf("the timeline has %v, want %v", types, want)
	}

	list := func(params client.ListPaymentsParams) (all []client.Payment) {
		w.t.Helper()
		for p, err := range c.Payments(w.t.Context(), &params) {
			if err != nil {
				w.t.Fatal(err)
			}
			all = append(all, p)
		}
		return all
	}
	all := list(client.ListPaymentsParams{Limit: 100})
	if len(all) != 4 || !slices.IsSortedFunc(all, func(a, b client.Payment) int { return strings.Compare(b.ID, a.ID) }) {
		w.t.Errorf("the list has %d payments, want 4, newest first: %+v", len(all), all)
	}
	paged := list(client.ListPaymentsParams{Customer: "cust-42", Currency: client.CurrencyEUR, Status: []client.PaymentStatus{client.PaymentStatusSucceeded}, Limit: 1})
	succeeded := slices.DeleteFunc(all, func(p client.Payment) bool { return p.Status != client.PaymentStatusSucceeded })
	if diff := cmp.Diff(succeeded, paged); diff != "" || len(paged) != 2 {
		w.t.Errorf("page by page came other succeeded payments: %s", diff)
	}
	for _, none := range []client.ListPaymentsParams{
		{Order: "A-9"}, {Currency: client.CurrencyUSD}, {Customer: "cust-4"}, {Status: []client.PaymentStatus{client.PaymentStatusCanceled}},
		{CreatedTo: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if got := list(none); len(got) != 0 {
			w.t.Errorf("with %+v the list has %+v", none, got)
		}
	}

	other := w.api(s, w.vars["PAYMENTS_API_KEY_2"])
	if a, err := other.GetPayment(w.t.Context(), won.ID, nil); client.CodeOf(err) != client.ProblemCodeNotFound {
		w.t.Errorf("another merchant reads the payment: %+v, %v", a, err)
	}
	if a, err := other.GetPaymentTimeline(w.t.Context(), won.ID, nil); client.CodeOf(err) != client.ProblemCodeNotFound {
		w.t.Errorf("another merchant reads its timeline: %+v, %v", a, err)
	}
	if a, err := other.ListPayments(w.t.Context(), nil); err != nil || len(a.Value.Data) != 0 {
		w.t.Errorf("another merchant's list: %+v, %v", a, err)
	}
}
