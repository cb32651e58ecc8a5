package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// What persons and the bank do of their own accord is in the ledger, and changes what
// it acts on.
func TestWhatHappensAtTheBankByItself(t *testing.T) {
	b := newBank(t)
	auth := b.want(authorize("a", "pm_card_visa"), http.StatusCreated, "")
	taken := b.want(captureOf("c", auth.ID, 4998), http.StatusCreated, "")
	refund := b.want(refundOf("r", taken.ID, 4998), http.StatusCreated, "")

	b.want(call{"/v1/refund_failures", "f", `{"reference":"` + auth.Reference + `","refund":"` + refund.ID + `"}`}, http.StatusCreated, "")
	b.want(call{"/v1/refund_failures", "f2", `{"reference":"` + auth.Reference + `","refund":"` + refund.ID + `"}`}, http.StatusPaymentRequired, "no_such_refund")
	// The request that made the refund is answered with what became of it, and its amount can be refunded again.
	b.want(refundOf("r", taken.ID, 4998), http.StatusPaymentRequired, "refund_failed")
	b.want(refundOf("r2", taken.ID, 4000), http.StatusCreated, "")

	disputed := b.want(call{"/v1/disputes", "d", `{"reference":"` + auth.Reference + `","capture":"` + taken.ID + `","amount":998,"currency":"EUR","reason":"fraudulent"}`}, http.StatusCreated, "")
	if disputed.Reason != "fraudulent" || disputed.RespondBy == "" {
		t.Errorf("disputed: %+v", disputed)
	}
	b.want(refundOf("r3", taken.ID, 1), http.StatusPaymentRequired, "payment_disputed")
	b.want(call{"/v1/dispute_closures", "w", `{"reference":"` + auth.Reference + `","dispute":"` + disputed.ID + `","outcome":"maybe"}`}, http.StatusUnprocessableEntity, "invalid_member")
	b.want(call{"/v1/dispute_closures", "w", `{"reference":"` + auth.Reference + `","dispute":"` + disputed.ID + `","outcome":"won"}`}, http.StatusCreated, "")
	b.want(call{"/v1/dispute_closures", "w2", `{"reference":"` + auth.Reference + `","dispute":"` + disputed.ID + `","outcome":"lost"}`}, http.StatusPaymentRequired, "no_such_dispute")

	other := b.want(authorize("a2", "pm_card_visa"), http.StatusCreated, "")
	b.want(call{"/v1/expiries", "e", `{"reference":"` + other.Reference + `","authorization":"` + other.ID + `"}`}, http.StatusCreated, "")
	b.want(captureOf("c2", other.ID, 4998), http.StatusPaymentRequired, "authorization_expired")
	b.want(call{"/v1/expiries", "e2", `{"reference":"` + auth.Reference + `","authorization":"` + auth.ID + `"}`}, http.StatusPaymentRequired, "no_such_authorization")
}

// A page of payments has each of them with all of its operations, also those outside the span.
func TestPaymentsAreListedByTheTimeOfWhatWasDone(t *testing.T) {
	b := newBank(t)
	const n = mostPayments + 7
	var first operation
	for i := range n {
		reference := fmt.Sprint("pay_", i)
		r := b.want(call{"/v1/authorizations", reference, `{"reference":"` + reference + `","amount":4998,"currency":"EUR","payment_method":"pm_card_visa"}`}, http.StatusCreated, "")
		if i == 0 {
			first = r
		}
	}
	from := b.clock.Now().Add(time.Second)
	b.clock.advance(time.Hour)
	b.want(call{"/v1/captures", "c", `{"reference":"pay_0","authorization":"` + first.ID + `","amount":4998,"currency":"EUR"}`}, http.StatusCreated, "")
	page := func(query string) (list paymentList) {
		t.Helper()
		r := b.do(t.Context(), http.MethodGet, "/v1/payments?"+query, "", "")
		if r.status != http.StatusOK {
			t.Fatalf("%s: %d %s", query, r.status, r.body)
		}
		if err := json.Unmarshal(r.body, &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	late := page("created_from=" + timestamp(from) + "&created_to=" + timestamp(b.clock.Now().Add(time.Second)))
	if len(late.Data) != 1 || len(late.Data[0].Operations) != 2 || late.Next != "" {
		t.Errorf("of the capture's hour: %d payments, next %q", len(late.Data), late.Next)
	}
	all := "created_from=2026-01-01T00:00:00Z&created_to=" + timestamp(from)
	one := page(all)
	two := page(all + "&after=" + one.Next)
	if len(one.Data) != mostPayments || len(two.Data) != n-mostPayments || two.Next != "" {
		t.Errorf("pages of %d and %d payments, next %q", len(one.Data), len(two.Data), two.Next)
	}
	for _, bad := range []string{"", "created_from=x&created_to=" + timestamp(from), "created_from=" + timestamp(from), "after=-1", "color=red"} {
		if r := b.do(t.Context(), http.MethodGet, "/v1/payments?"+bad, "", ""); r.status != http.StatusBadRequest {
			t.Errorf("%q was answered %d", bad, r.status)
		}
	}
}
