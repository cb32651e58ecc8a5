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

// While the projector lags, or Kafka is away and events wait in the outbox, a payment that
// POST /v1/payments has answered 202 for is not in the read model. A command answers from
// what it has done.
func TestCommandsAnswerWhileTheReadModelLags(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", `"capture_method": "manual", `) // 202; nothing is projected
	// As the worker leaves it after the authorization.
	for _, sql := range []string{
		`UPDATE payments SET status = 'requires_capture', authorization_reference = 'op_1'`,
		`UPDATE sagas SET step = 'await_capture', awaiting = true, due_at = now() + interval '1 hour'`,
	} {
		if _, err := w.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	told := func() (s string) {
		t.Helper()
		if err := w.pool.QueryRow(t.Context(), `SELECT 'signaled ' || signaled || ', abort ' || coalesce(abort->>'code', 'null') || ', due ' || (due_at <= now()) FROM sagas`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct{ action, told string }{
		{"capture", "signaled true, abort null, due true"}, {"capture", "signaled true, abort null, due true"},
		{"cancel", "signaled true, abort canceled, due true"}, {"cancel", "signaled true, abort canceled, due true"},
	} {
		for _, prefer := range []string{"", "wait=1"} {
			a := w.do("POST", "/v1/payments/"+id+"/"+c.action, w.merchant, "", "Prefer", prefer)
			if a.status != 202 || a.at(t, "id") != id || a.at(t, "status") != "requires_capture" || a.at(t, "customer.email") != "ada@example.com" ||
				a.at(t, "payment_method") != "pm_card_visa" || a.header.Get("Location") != "/v1/payments/"+id ||
				a.header.Get("Read-After") != committed(w.merchantID, id, 1) || (a.header.Get("Preference-Applied") != "") != (prefer != "") {
				t.Errorf("%s %q: %d %v %s", c.action, prefer, a.status, a.header, a.body)
			}
		}
		if got := told(); got != c.told {
			t.Errorf("after the %s the saga is: %s, want %s", c.action, got, c.told)
		}
	}
	w.refused("a read after the cancel", w.do("GET", "/v1/payments/"+id, w.merchant, "", "Read-After", committed(w.merchantID, id, 1)), 503, payment.CodeReadAfterTimeout)
}

// What waits for an outcome gets it from the write model, on the first call and on a replay,
// and a token with which a read finds the same or is refused.
func TestAnOutcomeIsToldWhileTheReadModelLags(t *testing.T) {
	w := newWorld(t)
	prefer := append(key("k-1"), "Prefer", "wait=2")
	placed := w.post(w.merchant, good, key("k-1")...)
	id := placed.at(t, "id").(string)
	w.declined(placed) // and not projected
	replay := w.post(w.merchant, good, prefer...)
	if replay.status != 200 || replay.at(t, "status") != "failed" || replay.at(t, "failure.code") != "card_declined" ||
		replay.header.Get("Idempotent-Replayed") != "true" || replay.header.Get("Read-After") != committed(w.merchantID, id, 2) {
		t.Errorf("replay: %d %v %s", replay.status, replay.header, replay.body)
	}
	if again := w.post(w.merchant, good, key("k-1")...); again.status != 202 || again.body != placed.body || again.header.Get("Read-After") != committed(w.merchantID, id, 1) {
		t.Errorf("replay without a preference: %d %v %s", again.status, again.header, again.body)
	}

	// Once the read model has it, a GET answers to the letter what the commands did.
	next := w.placed("A-2", "")
	canceled := w.do("POST", "/v1/payments/"+next+"/cancel", w.merchant, "")
	w.project(w.declined(placed)) // the event anew, with another time
	told := w.post(w.merchant, good, prefer...)
	for of, c := range map[string]struct{ told, got answer }{
		"outcome": {told, w.do("GET", "/v1/payments/"+id, w.merchant, "", "Read-After", told.header.Get("Read-After"))},
		"cancel":  {canceled, w.do("GET", "/v1/payments/"+next, w.merchant, "", "Read-After", canceled.header.Get("Read-After"))},
	} {
		if c.got.status != 200 || c.got.body != c.told.body {
			t.Errorf("%s: told %s\nread %d %s", of, c.told.body, c.got.status, c.got.body)
		}
	}
}

// An operator's refund names the payment alone: its merchant, too, comes from the write model.
func TestAnOperatorsRefundIsTakenWhileTheReadModelLags(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "") // nothing is projected
	w.make(id, payment.StatusSucceeded)
	path := "/v1/payments/" + id + "/refunds"
	for range 2 { // the second is a replay
		if a := w.do("POST", path, w.support, `{"amount": 1}`, key("r-1")...); a.status != 202 || a.at(t, "payment") != id {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	w.refused("a payment that is not there", w.do("POST", strings.Replace(path, id, w.ids.New(payment.PrefixPayment), 1), w.support, `{"amount": 1}`, key("r-2")...),
		404, payment.CodeNotFound)
}
