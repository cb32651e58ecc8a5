package api

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// block leaves an order's key behind an event that is not valid, with one more
// behind it, and gives the key's id.
func (w *world) block(orderID string, values ...string) string {
	w.t.Helper()
	var batch []inbox.Message
	for i, v := range values {
		batch = append(batch, inbox.Message{
			Topic: payment.Topic, Offset: int64(i), Key: []byte(orderID), Value: []byte(v),
			Headers: map[string]string{"ce_id": w.ids.New(payment.PrefixEvent), "ce_type": "order.placed"},
		})
	}
	if n, err := w.projector.Apply(context.WithoutCancel(w.t.Context()), 1, batch); n != len(batch) || err != nil {
		w.t.Fatalf("block: %d, %v", n, err)
	}
	list := w.do("GET", "/v1/ops/parked", w.operator, "")
	return list.at(w.t, "data.0.id").(string)
}

func TestBlockedKeysAreTheOperatorsAlone(t *testing.T) {
	w := newWorld(t)
	id := w.block(w.ids.New(payment.PrefixOrder), "{}")
	for _, c := range []struct {
		method, path string
		status       int
		code         payment.Code
	}{
		{"GET", "/v1/ops/parked", 403, payment.CodeForbidden},
		{"GET", "/v1/ops/parked/groups", 403, payment.CodeForbidden},
		{"POST", "/v1/ops/parked/replay", 403, payment.CodeForbidden},
		{"GET", "/v1/ops/parked/" + id, 404, payment.CodeNotFound},
		{"POST", "/v1/ops/parked/" + id + "/replay", 404, payment.CodeNotFound},
		{"POST", "/v1/ops/parked/" + id + "/discard", 404, payment.CodeNotFound},
	} {
		w.refused(c.method+" "+c.path, w.do(c.method, c.path, w.merchant, ""), c.status, c.code)
		w.refused(c.method+" "+c.path+" without a key", w.do(c.method, c.path, "", ""), 401, payment.CodeUnauthenticated)
	}
	if a := w.do("GET", "/v1/ops/parked/"+id, w.operator, ""); a.at(t, "replays") != "0" {
		t.Errorf("a refused request replayed: %s", a.body)
	}
}

func TestBlockedKeysAreShownReplayedAndDiscarded(t *testing.T) {
	w := newWorld(t)
	orderID := w.ids.New(payment.PrefixOrder)
	id := w.block(orderID, `{"a": 1}`, "\xff")
	list := w.do("GET", "/v1/ops/parked?consumer=payment_view&limit=1", w.operator, "")
	for path, want := range map[string]any{
		"object": "list", "has_more": false, "data.0.object": "parked_key", "data.0.key": orderID, "data.0.topic": payment.Topic,
		"data.0.messages": "2", "data.0.replays": "0",
	} {
		if got := list.at(t, path); got != want {
			t.Errorf("%s = %v, want %v", path, got, want)
		}
	}
	if other := w.do("GET", "/v1/ops/parked?consumer=other", w.operator, ""); other.body != `{"object":"list","data":[],"has_more":false,"next_cursor":null}` {
		t.Errorf("of another consumer: %s", other.body)
	}
	groups := w.do("GET", "/v1/ops/parked/groups", w.operator, "")
	if groups.at(t, "data.0.fingerprint") != list.at(t, "data.0.fingerprint") || groups.at(t, "data.0.keys") != "1" {
		t.Errorf("groups %s", groups.body)
	}
	one := w.do("GET", "/v1/ops/parked/"+id, w.operator, "")
	for path, want := range map[string]any{
		"id": id, "data.0.value.a": "1", "data.0.value_base64": nil, "data.1.value": nil, "data.1.value_base64": "/w==",
		"data.0.headers.ce_type": "order.placed", "data.1.offset": "1",
	} {
		if got := one.at(t, path); got != want {
			t.Errorf("%s = %v, want %v", path, got, want)
		}
	}
	replay := w.do("POST", "/v1/ops/parked/"+id+"/replay", w.operator, "")
	if replay.status != http.StatusOK || replay.at(t, "released") != false || replay.at(t, "remaining") != "2" ||
		!strings.Contains(replay.at(t, "reason").(string), "ce_sequence") {
		t.Errorf("replay: %d %s", replay.status, replay.body)
	}
	all := w.do("POST", "/v1/ops/parked/replay", w.operator, `{"consumer": "payment_view"}`)
	if all.at(t, "data.0.id") != id {
		t.Errorf("replay of all: %s", all.body)
	}
	discard := "/v1/ops/parked/" + id + "/discard"
	for body, want := range map[string]string{
		`{}`: "/reason missing,/offset missing", `{"reason": "x"}`: "/offset missing", `{"reason": "x", "all": false}`: "/offset missing",
		`{"reason": " ", "all": true}`: "/reason text_invalid", `{"reason": "a\u0000", "offset": 0}`: "/reason text_invalid",
		`{"reason": "x", "offset": 0, "all": true}`: "/offset member_conflicting", `{"reason": "x", "offset": 0, "more": 1}`: "/more member_unknown",
		`{"reason": "` + strings.Repeat("x", 1001) + `", "all": true}`: "/reason text_invalid",
	} {
		if got := w.refused(body, w.do("POST", discard, w.operator, body), 400, payment.CodeInvalid); strings.Join(got, ",") != want {
			t.Errorf("discard %.40s: %v, want %s", body, got, want)
		}
	}
	first := w.do("POST", discard, w.operator, `{"reason": "not ours", "offset": 0}`)
	if first.status != http.StatusOK || first.at(t, "remaining") != "1" || first.at(t, "released") != false {
		t.Errorf("discard: %d %s", first.status, first.body)
	}
	w.refused("the same again", w.do("POST", discard, w.operator, `{"reason": "not ours", "offset": 0}`), 409, payment.CodeDeadLetterMoved)
	rest := w.do("POST", discard, w.operator, `{"reason": "not ours", "all": true}`)
	if rest.at(t, "released") != true {
		t.Errorf("discard all: %s", rest.body)
	}
	var by int
	if err := w.pool.QueryRow(t.Context(), `
		SELECT count(*) FROM inbox_discarded d JOIN api_keys k ON (k.id, k.holder) = (d.discarded_by, d.holder) WHERE k.role = 'operator'`).Scan(&by); err != nil || by != 2 {
		t.Errorf("%d discards by an operator's key (%v), want 2", by, err)
	}
	for _, a := range []answer{
		w.do("GET", "/v1/ops/parked/"+id, w.operator, ""), w.do("POST", discard, w.operator, `{"reason": "again", "offset": 1}`),
		w.do("POST", "/v1/ops/parked/"+id+"/replay", w.operator, "{}"), w.do("GET", "/v1/ops/parked/%00", w.operator, ""),
	} {
		w.refused("what is gone", a, 404, payment.CodeNotFound)
	}
}

func TestQueriesOfBlockedKeysAreHeldToTheirRules(t *testing.T) {
	w := newWorld(t)
	for query, want := range map[string]string{
		"limit=0": "/query/limit out_of_range", "limit=101": "/query/limit out_of_range", "limit=x": "/query/limit out_of_range",
		"cursor=x": "/query/cursor cursor_invalid", "consumer=%00": "/query/consumer text_invalid", "more=1": "/query/more parameter_unknown",
		"fingerprint=%ff": "/query/fingerprint text_invalid",
	} {
		got := w.refused(query, w.do("GET", "/v1/ops/parked?"+query, w.operator, ""), 400, payment.CodeInvalid)
		if strings.Join(got, ",") != want {
			t.Errorf("%s: %v, want %s", query, got, want)
		}
	}
	for _, body := range []string{`{"consumer": ""}`, `{"fingerprint": "\u0000"}`} {
		w.refused(body, w.do("POST", "/v1/ops/parked/replay", w.operator, body), 400, payment.CodeInvalid)
	}
}
