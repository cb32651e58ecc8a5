package api

import (
	"slices"
	"strings"
	"testing"

	"payments/internal/payment"
)

// placed is the id of a payment of the merchant's, with the members of the body as given.
func (w *world) placed(reference, more string) string {
	w.t.Helper()
	body := strings.Replace(strings.Replace(good, "A-1001", reference, 1), `{"amount"`, `{`+more+`"amount"`, 1)
	a := w.post(w.merchant, body, key("k-"+reference)...)
	if a.status != 202 {
		w.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.at(w.t, "id").(string)
}

// make gives a payment a state that its saga, which does not run here, would give it.
func (w *world) make(id string, status payment.Status) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), `
		UPDATE payments SET status = $2, amount_captured = CASE WHEN $2 = 'succeeded' THEN amount ELSE 0 END, capture_reference = 'op_1',
			failure_code = 'x', failure_step = 'x', failure_message = 'x' WHERE id = $1`, id, status); err != nil {
		w.t.Fatal(err)
	}
}

func allowed(t *testing.T, a answer) (actions []string) {
	t.Helper()
	for _, action := range a.at(t, "allowed_actions").([]any) {
		actions = append(actions, action.(string))
	}
	return actions
}

func TestWhatAStateAllows(t *testing.T) {
	w := newWorld(t)
	for status, may := range map[payment.Status]struct{ cancel, capture, refund bool }{
		payment.StatusProcessing: {cancel: true},
		payment.StatusSucceeded:  {refund: true},
		payment.StatusFailed:     {},
		payment.StatusCanceled:   {cancel: true}, // it is canceled: asked again
	} {
		id := w.placed(string(status), `"capture_method": "automatic", `)
		w.project()
		w.make(id, status)
		if status != payment.StatusProcessing {
			if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET state = 'completed', due_at = NULL, abortable = false
				WHERE subject = (SELECT order_id FROM payments WHERE id = $1)`, id); err != nil {
				t.Fatal(err)
			}
		}
		for action, can := range map[string]bool{"cancel": may.cancel, "capture": may.capture, "refunds": may.refund} {
			body := ""
			if action == "refunds" {
				body = `{"amount": 1}`
			}
			a := w.do("POST", "/v1/payments/"+id+"/"+action, w.merchant, body, key("r-"+string(status))...)
			if can {
				if a.status != 202 {
					t.Errorf("%s of a %s payment: %d %s", action, status, a.status, a.body)
				}
				continue
			}
			w.refused(action+" "+string(status), a, 409, payment.CodeActionNotAllowed)
			if got := allowed(t, a); action == "capture" && !slices.Equal(got, status.Actions()) {
				t.Errorf("a %s payment allows %v, want %v", status, got, status.Actions())
			}
		}
	}
}

func TestChangesAreTheMerchantsOwn(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.project()
	n := w.rows()
	for _, action := range []string{"cancel", "capture", "refunds"} {
		path := "/v1/payments/" + id + "/" + action
		w.refused(action, w.do("POST", path, w.other, "{}", key("k")...), 404, payment.CodeNotFound)
		w.refused(action, w.do("POST", path, w.operator, "{}", key("k")...), 404, payment.CodeNotFound)
		w.refused(action, w.do("POST", strings.Replace(path, id, "pay_x", 1), w.merchant, "{}", key("k")...), 404, payment.CodeNotFound)
		w.refused(action, w.do("POST", path, "", "{}", key("k")...), 401, payment.CodeUnauthenticated)
		w.refused(action, w.do("POST", path, w.merchant, `{"surprise": 1}`, key("k")...), 400, payment.CodeInvalid)
	}
	w.refused("refunds", w.do("GET", "/v1/payments/"+id+"/refunds", w.other, ""), 404, payment.CodeNotFound)
	if got := w.rows(); got != n {
		t.Errorf("%d rows, want %d", got, n)
	}
}

func TestARefundIsAskedOnceAndReplayed(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.project()
	w.make(id, payment.StatusSucceeded)
	path := "/v1/payments/" + id + "/refunds"
	w.refused("no key", w.do("POST", path, w.merchant, `{"amount": 1}`), 400, payment.CodeKeyMissing)
	if errs := w.refused("zero", w.do("POST", path, w.merchant, `{"amount": 0, "reason": "a\u0000"}`, key("r-0")...), 400, payment.CodeInvalid); !slices.Equal(errs, []string{"/amount out_of_range", "/reason text_invalid"}) {
		t.Errorf("errors %v", errs)
	}
	first := w.do("POST", path, w.merchant, `{"amount": 1000, "reason": "returned"}`, key("r-1")...)
	if first.status != 202 || first.at(t, "object") != "refund" || first.at(t, "status") != "pending" || first.at(t, "amount") != "1000" ||
		first.at(t, "payment") != id || first.at(t, "reason") != "returned" || first.header.Get("Location") != path {
		t.Fatalf("%d %v %s", first.status, first.header, first.body)
	}
	again := w.do("POST", path, w.merchant, `{"reason": "returned", "amount": 1000}`, key("r-1")...)
	if again.status != 202 || again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("replay: %d %v %s", again.status, again.header, again.body)
	}
	w.refused("other body", w.do("POST", path, w.merchant, `{"amount": 999}`, key("r-1")...), 422, payment.CodeKeyReused)
	w.refused("too much", w.do("POST", path, w.merchant, `{"amount": 3999}`, key("r-2")...), 409, payment.CodeRefundExceeds)
	rest := w.do("POST", path, w.merchant, `{}`, key("r-3")...)
	if rest.status != 202 || rest.at(t, "amount") != "3998" {
		t.Errorf("the rest: %d %s", rest.status, rest.body)
	}
}
