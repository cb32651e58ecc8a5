package order_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// underReview is a payment of which nobody knows whether it was authorized. The bank has
// recovered.
func (w *world) underReview(capture payment.CaptureMethod) string {
	w.t.Helper()
	w.policy.KeyLifetime = 0
	w.fault(`{"kind": "timeout_lost", "operation": "authorization"}`)
	id := w.placed("pm_card_visa", capture)
	w.settle()
	if s := w.status(id); s != "requires_review" {
		w.t.Fatal(s)
	}
	w.agree()
	w.heal()
	w.policy.KeyLifetime = time.Hour
	return id
}

// shown is the payment's status and failure, in both models.
func (w *world) shown(id string) string {
	w.t.Helper()
	w.agree()
	return one[string](w, `SELECT status || ', failure ' || coalesce(failure_code || ' at ' || failure_step || ': ' || failure_message, 'null') FROM payments WHERE id = $1`, id)
}

// "failure: Why it failed; null otherwise" (openapi.yaml).
func TestAReviewThatIsOverIsNoFailure(t *testing.T) {
	w := newWorld(t)
	canceled, captured, lapsed := w.underReview(payment.CaptureManual), w.underReview(payment.CaptureManual), w.underReview(payment.CaptureManual)
	automatic := w.underReview("")
	for _, id := range []string{canceled, captured, lapsed, automatic} {
		w.act(ada, w.sagaOf(id), "retry", order.Verdict{}, "")
	}
	w.settle()
	for _, id := range []string{canceled, captured, lapsed} {
		if s := w.shown(id); s != "requires_capture, failure null" {
			t.Errorf("authorized, and waiting for its capture: %s", s)
		}
	}
	w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, canceled)) })
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, captured)) })
	w.exec(`UPDATE sagas SET step_since = step_since - interval '2 hours', due_at = now() WHERE id = $1`, w.sagaOf(lapsed))
	w.drainAwaits()
	for id, want := range map[string]string{
		canceled: "canceled, failure null", captured: "succeeded, failure null", automatic: "succeeded, failure null",
		lapsed: "canceled, failure authorization_expired at await_capture: The payment was not captured in time.", // that is its own
	} {
		if s := w.shown(id); s != want {
			t.Errorf("%s, want %s", s, want)
		}
	}
	w.audited()
}

// A cancellation that needed a person leaves no failure either.
func TestACancellationThatWasUnderReviewIsNoFailure(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.policy.KeyLifetime = 0
	w.fault(`{"kind": "timeout_lost", "operation": "void"}`)
	w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, id)) })
	w.settle()
	if s := w.status(id); s != "requires_review" {
		t.Fatal(s)
	}
	w.heal()
	w.policy.KeyLifetime = time.Hour
	w.act(ada, w.sagaOf(id), "retry", order.Verdict{}, "")
	w.settle()
	if s := w.shown(id); s != "canceled, failure null" {
		t.Error(s)
	}
	w.audited()
}

func (w *world) rates() (payments, approved, declined int) {
	w.t.Helper()
	err := pgx.BeginTxFunc(w.t.Context(), w.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		_, err := tx.Exec(w.t.Context(), `SELECT report_refresh('5 min')`)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.pool.QueryRow(w.t.Context(), `
		SELECT sum(payments)::int, sum(approved)::int, sum(declined)::int FROM report_approval_rate WHERE merchant_id = $1`, w.merchant).
		Scan(&payments, &approved, &declined); err != nil {
		w.t.Fatal(err)
	}
	return payments, approved, declined
}

// "the bank's answers to authorizations: approved, declined …; payments has those never asked
// about or not answered, too" (docs/patterns/materialized-views.md).
func TestAnAuthorizationThatTheBankNeverAnsweredIsNotDeclined(t *testing.T) {
	w := newWorld(t)
	id := w.underReview("")
	payments, approved, declined := w.rates()
	if payments != 1 || approved != 0 || declined != 0 {
		t.Errorf("in review, never answered: %d payments, %d approved, %d declined", payments, approved, declined)
	}
	w.placed("pm_card_declined", "")
	w.act(ada, w.sagaOf(id), "retry", order.Verdict{}, "")
	w.settle()
	if payments, approved, declined := w.rates(); payments != 2 || approved != 1 || declined != 1 {
		t.Errorf("answered: %d payments, %d approved, %d declined", payments, approved, declined)
	}
}

// Rows from before have the failures of reviews that are over.
func TestReviewsThatWereOverBeforeLoseTheirFailures(t *testing.T) {
	w, versions := newWorld(t), downTo(t, 32)
	pool, err := postgres.Open(t.Context(), versions.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.pool, w.config.Pool = pool, pool
	w.orders = order.New(w.config)
	w.exec(`INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, w.merchant)
	for n, c := range []struct{ status, code, step string }{
		{"succeeded", "unresolved", "capture_payment"}, {"requires_capture", "unresolved", "authorize_payment"}, {"canceled", "unresolved", "void_authorization"},
		{"canceled", "authorization_expired", "await_capture"}, {"failed", "card_declined", "authorize_payment"}, {"requires_review", "unresolved", "authorize_payment"},
	} {
		id := w.placed("pm_card_visa", payment.CaptureManual)
		w.project()
		w.exec(`
			UPDATE payments SET status = $2, failure_code = $3, failure_step = $4, failure_message = $5,
				amount_captured = CASE $2 WHEN 'succeeded' THEN amount ELSE 0 END WHERE id = $1`, id, c.status, c.code, c.step, fmt.Sprint(n))
		w.exec(`
			UPDATE payment_view SET status = $2, failure_code = $3, failure = jsonb_build_object('code', $3::text, 'step', $4::text, 'message', 'x')
			WHERE payment_id = $1`, id, c.status, c.code, c.step)
	}
	if _, err := versions.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	const want = "canceled authorization_expired,failed card_declined,requires_review unresolved"
	for _, of := range []string{`payments WHERE failure_message IS NOT NULL`, `payment_view WHERE failure IS NOT NULL`} {
		if got := one[string](w, `SELECT string_agg(status || ' ' || failure_code, ',' ORDER BY status) FROM `+of); got != want {
			t.Errorf("%s: %s", of, got)
		}
	}
	if _, err := versions.DownTo(t.Context(), 32); err != nil {
		t.Fatal(err)
	}
	if _, err := versions.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}
