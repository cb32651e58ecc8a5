package order_test

import (
	"slices"
	"testing"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// Every code of three capitals has the same verdict in both.
func TestCurrenciesAgree(t *testing.T) {
	w := newWorld(t)
	var known []string
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			for c := 'A'; c <= 'Z'; c++ {
				if code := string([]rune{a, b, c}); func() bool { _, err := payment.ParseCurrency(code); return err == nil }() {
					known = append(known, code)
				}
			}
		}
	}
	if stored := one[[]string](w, `SELECT array_agg(c ORDER BY c) FROM unnest(currencies()) AS c`); !slices.Equal(stored, known) {
		t.Errorf("the database knows %v, the domain %v", stored, known)
	}
}

// A payment's status moves in the database as the domain's state machine has it.
func TestTransitionsAgree(t *testing.T) {
	w := newWorld(t)
	all := []payment.Status{
		payment.StatusProcessing, payment.StatusRequiresCapture, payment.StatusRequiresReview, payment.StatusSucceeded, payment.StatusFailed, payment.StatusCanceled,
	}
	set := `UPDATE payments SET status = $2, amount_captured = CASE WHEN $2 = 'succeeded' THEN amount ELSE amount_captured END,
		failure_code = 'x', failure_step = 'x', failure_message = 'x' WHERE id = $1`
	for _, from := range all {
		for _, to := range all {
			id := w.placed("pm_card_visa", payment.CaptureManual)
			if from != payment.StatusProcessing {
				w.exec(set, id, from)
			}
			_, err := w.pool.Exec(t.Context(), set, id, to)
			if may := from == to || from.CanBecome(to); (err == nil) != may || err != nil && postgres.Constraint(err) != "payments_transition" {
				t.Errorf("from %s to %s: %v", from, to, err)
			}
		}
	}
}
