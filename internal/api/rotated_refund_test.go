package api

import (
	"testing"

	"payments/internal/payment"
)

// keyIDOf is the first API key of the role.
func (w *world) keyIDOf(role string) string {
	w.t.Helper()
	var id string
	if err := w.pool.QueryRow(w.t.Context(), `SELECT id FROM api_keys WHERE role = $1 ORDER BY id LIMIT 1`, role).Scan(&id); err != nil {
		w.t.Fatal(err)
	}
	return id
}

// A refund by support has no answer, and before it asks again its API key is
// rotated, which is what the overlap is for.
func TestARotationBetweenTwoTriesRefundsOnce(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.project()
	w.make(id, payment.StatusSucceeded)
	path := "/v1/payments/" + id + "/refunds"
	first := w.do("POST", path, w.support, `{"amount": 100}`, key("s-1")...)
	if first.status != 202 {
		t.Fatal(first.body)
	}
	rotated := w.do("POST", "/v1/ops/keys/"+w.keyIDOf("support")+"/rotate", w.support, `{"mode":"test","overlap_seconds":3600}`, key("r-1")...)
	again := w.do("POST", path, rotated.at(t, "secret").(string), `{"amount": 100}`, key("s-1")...)
	if again.at(t, "id") != first.at(t, "id") {
		t.Errorf("the same key, another refund: %d %s and %s", again.status, first.at(t, "id"), again.at(t, "id"))
	}
}
