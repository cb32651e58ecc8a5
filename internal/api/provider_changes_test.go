package api

import (
	"testing"

	"payments/internal/payment"
)

// An operator lists what was found at the provider, and takes note of it; nobody else does.
func TestOperatorsSeeAndAcceptProviderChanges(t *testing.T) {
	w := newWorld(t)
	x := w.plant()
	second := w.ids.New(payment.PrefixChange)
	if _, err := w.pool.Exec(t.Context(), `
		INSERT INTO provider_changes (merchant_id, id, payment_id, kind, subject, amount, detail, state)
		VALUES ($1, $2, $3, 'refund_failed_later', 're_1', 7, 'A refund that had succeeded has failed.', 'recorded')`, w.otherID, second, x.payment); err != nil {
		t.Fatal(err)
	}
	const list = "/v1/ops/provider_changes"
	page := w.do("GET", list+"?limit=1", w.operator, "")
	if page.status != 200 || page.at(t, "has_more") != true || page.at(t, "data.0.id") != x.change || page.at(t, "data.0.payment") != x.payment {
		t.Fatalf("%d %s", page.status, page.body)
	}
	if next := w.do("GET", list+"?cursor="+page.at(t, "next_cursor").(string), w.operator, ""); next.status != 200 || next.at(t, "data.0.id") != second {
		t.Errorf("%d %s", next.status, next.body)
	}
	if open := w.do("GET", list+"?state=open", w.operator, ""); open.status != 200 || len(open.at(t, "data").([]any)) != 1 {
		t.Errorf("%d %s", open.status, open.body)
	}
	w.refused("a state", w.do("GET", list+"?state=x", w.operator, ""), 400, payment.CodeInvalid)
	w.refused("a merchant", w.do("GET", list, w.merchant, ""), 403, payment.CodeForbidden)
	accept := list + "/" + x.change + "/accept"
	w.refused("a merchant", w.do("POST", accept, w.other, `{"reason": "x"}`), 404, payment.CodeNotFound)
	w.refused("without a reason", w.do("POST", accept, w.operator, `{}`), 400, payment.CodeInvalid)
	w.refused("nothing", w.do("POST", list+"/pch_x/accept", w.operator, `{"reason": "x"}`), 404, payment.CodeNotFound)
	w.refused("a recorded one", w.do("POST", list+"/"+second+"/accept", w.operator, `{"reason": "x"}`), 409, payment.CodeSagaState)
	for range 2 {
		a := w.do("POST", accept, w.operator, `{"reason": "the shop did it"}`)
		if a.status != 200 || a.at(t, "state") != "accepted" || a.at(t, "reason") != "the shop did it" || a.at(t, "decided_at") == nil {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}
