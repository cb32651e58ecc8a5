package api

import (
	"slices"
	"testing"

	"payments/internal/payment"
)

func TestOperatorsSeeAndMoveSagas(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.placed("A-2", "")
	page := w.do("GET", "/v1/ops/sagas?limit=1", w.operator, "")
	if page.status != 200 || page.at(t, "has_more") != true || page.at(t, "data.0.state") != "running" || page.at(t, "data.0.step") != "reserve_stock" {
		t.Fatalf("%d %s", page.status, page.body)
	}
	first := page.at(t, "data.0.id").(string)
	next := w.do("GET", "/v1/ops/sagas?cursor="+page.at(t, "next_cursor").(string), w.operator, "")
	if next.status != 200 || next.at(t, "has_more") != false || next.at(t, "data.0.id") == first {
		t.Errorf("%d %s", next.status, next.body)
	}
	for _, query := range []string{"state=parked", "older_than=1h", "paused=true", "definition=refund"} {
		if a := w.do("GET", "/v1/ops/sagas?"+query, w.operator, ""); a.status != 200 || len(a.at(t, "data").([]any)) != 0 {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	path := "/v1/ops/sagas/" + first
	paused := w.do("POST", path+"/pause", w.operator, `{"reason": "the bank called"}`)
	if paused.status != 200 || paused.at(t, "paused_at") == nil || paused.at(t, "actions.0.action") != "pause" ||
		paused.at(t, "actions.0.reason") != "the bank called" || len(paused.at(t, "attempts").([]any)) != 0 {
		t.Errorf("%d %s", paused.status, paused.body)
	}
	if a := w.do("POST", path+"/cancel", w.operator, `{"reason": "at the customer's wish"}`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.refused("a proposal", w.do("POST", path+"/propose", w.operator,
		`{"reason": "seen", "verdict": {"outcome": "succeeded", "reference": "op_1"}}`), 409, payment.CodeSagaState)
	w.refused("an approval", w.do("POST", path+"/approve", w.operator,
		`{"reason": "seen", "verdict": {"outcome": "succeeded", "reference": "op_1"}}`), 409, payment.CodeSagaState)
	_ = id
}

func TestWhatOperatorsMayNotAsk(t *testing.T) {
	w := newWorld(t)
	w.placed("A-1", "")
	first := "/v1/ops/sagas/" + w.do("GET", "/v1/ops/sagas", w.operator, "").at(t, "data.0.id").(string)
	w.refused("a merchant", w.do("GET", "/v1/ops/sagas", w.merchant, ""), 403, payment.CodeForbidden)
	w.refused("a merchant", w.do("GET", first, w.merchant, ""), 404, payment.CodeNotFound)
	w.refused("a merchant", w.do("POST", first+"/pause", w.merchant, `{"reason": "x"}`), 404, payment.CodeNotFound)
	w.refused("no such act", w.do("POST", first+"/explode", w.operator, `{"reason": "x"}`), 404, payment.CodeNotFound)
	w.refused("no such saga", w.do("POST", "/v1/ops/sagas/sag_x/retry", w.operator, `{"reason": "x"}`), 404, payment.CodeNotFound)
	for query, want := range map[string]string{
		"state=x": "/query/state state_invalid", "older_than=-1s": "/query/older_than duration_invalid", "paused=1": "/query/paused value_invalid",
		"limit=101": "/query/limit out_of_range", "cursor=x": "/query/cursor cursor_invalid", "definition=x": "/query/definition definition_invalid", "definition=": "/query/definition definition_invalid",
		"x=1": "/query/x parameter_unknown",
	} {
		if errs := w.refused(query, w.do("GET", "/v1/ops/sagas?"+query, w.operator, ""), 400, payment.CodeInvalid); !slices.Equal(errs, []string{want}) {
			t.Errorf("%s: %v", query, errs)
		}
	}
	for body, want := range map[string]string{
		`{}`: "/reason missing", `{"reason": ""}`: "/reason text_invalid", `{"reason": "a\u0000"}`: "/reason text_invalid",
		`{"reason": "x", "verdict": {}}`: "/verdict member_unknown",
	} {
		if errs := w.refused(body, w.do("POST", first+"/retry", w.operator, body), 400, payment.CodeInvalid); !slices.Equal(errs, []string{want}) {
			t.Errorf("%s: %v", body, errs)
		}
	}
	for body, want := range map[string]string{
		`{"reason": "x"}`: "/verdict missing", `{"reason": "x", "verdict": {"outcome": "unknown"}}`: "/verdict/outcome outcome_invalid",
		`{"reason": "x", "verdict": {"outcome": "succeeded"}}`: "/verdict/reference missing", `{"reason": "x", "verdict": {"outcome": "rejected"}}`: "/verdict/code missing",
		`{"reason": "x", "verdict": {"outcome": "rejected", "code": "a\nb"}}`: "/verdict/code text_invalid",
	} {
		for _, act := range []string{"propose", "approve"} {
			if errs := w.refused(body, w.do("POST", first+"/"+act, w.operator, body), 400, payment.CodeInvalid); !slices.Equal(errs, []string{want}) {
				t.Errorf("%s %s: %v", act, body, errs)
			}
		}
	}
}

// Who proposes a verdict does not approve it by another key: neither by one that is
// written in other letters, nor by the successor of the first, nor by one of before.
func TestTwoKeysOfOnePersonAreOnePerson(t *testing.T) {
	w := newBoundaryWorld(t)
	made := func(holder string) (id, secret string) {
		return w.made(`{"mode": "test", "role": "operator", "holder": "`+holder+`"}`, key(w.fresh())...)
	}
	first, ada := made("Ada Lovelace")
	_, again := made("ada LOVELACE")
	second, grace := made("grace")
	successor := w.do("POST", "/v1/ops/keys/"+first+"/rotate", ada, `{"mode": "test"}`, key(w.fresh())...).at(t, "secret").(string)
	path := "/v1/ops/sagas/" + w.parkedSaga()
	proposal := `{"reason": "seen", "verdict": {"outcome": "succeeded", "reference": "op_1"}}`
	for _, by := range []string{again, successor, ada} {
		if a := w.do("POST", path+"/propose", by, proposal); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for _, k := range []string{ada, again, successor} {
			w.refused("an approval by who proposed", w.do("POST", path+"/approve", k, proposal), 409, payment.CodeSecondOperator)
		}
	}
	a := w.do("POST", path+"/approve", grace, proposal)
	if a.status != 200 || a.at(t, "actions.2.holder") != "Ada Lovelace" || a.at(t, "actions.2.operator") != first ||
		a.at(t, "actions.3.action") != "approve" || a.at(t, "actions.3.holder") != "grace" || a.at(t, "actions.3.operator") != second {
		t.Errorf("%d %s", a.status, a.body)
	}
}
