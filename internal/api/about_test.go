package api

import (
	"slices"
	"strings"
	"testing"

	"payments/internal/payment"
)

// An operator has the id or the reference that a merchant tells, and not the saga's.
func TestSagasAreFoundByWhatTheyMove(t *testing.T) {
	w := newWorld(t)
	first, second := w.placed("A-1", ""), w.placed("A-2", "")
	w.placed("A-3", "")
	var order string
	if err := w.pool.QueryRow(t.Context(), `SELECT order_id FROM payments WHERE id = $1`, first).Scan(&order); err != nil {
		t.Fatal(err)
	}
	found := func(query string) (payments []string) {
		t.Helper()
		a := w.do("GET", "/v1/ops/sagas?"+query, w.operator, "")
		if a.status != 200 {
			t.Fatalf("%s: %d %s", query, a.status, a.body)
		}
		for _, s := range a.at(t, "data").([]any) {
			payments = append(payments, s.(map[string]any)["payment"].(string))
		}
		return payments
	}
	for query, want := range map[string][]string{
		"payment=" + first: {first}, "order=" + order: {first}, "reference=A-2": {second}, "reference=%20A-2%20": {second},
		"payment=" + first + "&state=running": {first}, "payment=" + first + "&state=parked": nil, "payment=" + first + "&definition=refund": nil,
		"reference=A-9": nil, "reference=%20": nil, "payment=pay_01jqh0000000000000000000zz": nil, "order=ord_01jqh0000000000000000000zz": nil,
	} {
		if got := found(query); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	// Those that have ended, of every try: a failed order gives its reference free.
	w.make(first, payment.StatusFailed)
	if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET state = 'compensated', due_at = NULL WHERE subject = $1`, order); err != nil {
		t.Fatal(err)
	}
	w.project()
	for _, query := range []string{"payment=" + first, "order=" + order, "reference=A-1"} {
		if got := found(query); !slices.Equal(got, []string{first}) {
			t.Errorf("ended, %s: %v", query, got)
		}
	}
	for query, want := range map[string]string{
		"payment=x": "/query/payment id_invalid", "payment=" + order: "/query/payment id_invalid", "order=A-1": "/query/order id_invalid",
		"reference=": "/query/reference text_invalid", "reference=" + strings.Repeat("r", 65): "/query/reference text_invalid",
		"payment=" + first + "&order=" + order: "/query/order parameter_conflicting", "order=" + order + "&reference=A-1": "/query/reference parameter_conflicting",
	} {
		if errs := w.refused(query, w.do("GET", "/v1/ops/sagas?"+query, w.operator, ""), 400, payment.CodeInvalid); !slices.Equal(errs, []string{want}) {
			t.Errorf("%s: %v, want %s", query, errs, want)
		}
	}
}
