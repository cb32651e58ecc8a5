package order_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider"
)

// repeating is a provider that writes what it was sent into its refusals.
type repeating struct{ provider.Provider }

func (repeating) Execute(_ context.Context, op provider.Operation) provider.Result {
	if op.PaymentMethod == "" {
		return provider.Result{Outcome: provider.Rejected, Code: "no_method", Message: "Nothing to charge."}
	}
	return provider.Result{Outcome: provider.Rejected, Code: "declined_" + op.PaymentMethod, Message: "No such card: " + op.PaymentMethod}
}

// kept is every place of the write model where the text stands.
func (w *world) kept(text string) (places []string) {
	w.t.Helper()
	return strings.Fields(one[string](w, `
		SELECT concat_ws(' ',
			(SELECT string_agg(DISTINCT 'payments', '') FROM payments p WHERE p::text LIKE '%' || $1 || '%'),
			(SELECT string_agg(DISTINCT 'sagas', '') FROM sagas s WHERE s::text LIKE '%' || $1 || '%'),
			(SELECT string_agg(DISTINCT 'attempts', '') FROM saga_attempts a WHERE a::text LIKE '%' || $1 || '%'),
			(SELECT string_agg(DISTINCT 'outbox', '') FROM outbox o WHERE position($1::bytea IN o.payload) > 0))`, text))
}

func TestAProvidersRefusalDoesNotRepeatThePaymentMethod(t *testing.T) {
	w := newWorld(t)
	w.config.Provider = repeating{w.config.Provider}
	w.orders = order.New(w.config)
	id := w.placed("pm_canary_5f1b", payment.CaptureAutomatic)
	w.settle()
	if s := w.status(id); s != "failed" {
		t.Errorf("%s is %s", id, s)
	}
	if message := one[string](w, `SELECT failure_message FROM payments WHERE id = $1`, id); message != "No such card: pm_…" {
		t.Errorf("it failed for %q", message)
	}
	if places := w.kept("pm_canary_5f1b"); len(places) > 0 {
		t.Errorf("the payment method stands in %v", places)
	}
}

// However a payment ends, its saga has not even the ciphertext in the end.
func TestASagaForgetsThePaymentMethod(t *testing.T) {
	w := newWorld(t)
	won, declined, canceled := w.placed("pm_card_visa", ""), w.placed("pm_card_declined", ""), w.placed("pm_card_visa", "")
	lost := w.placed("pm_card_timeout_lost", "")
	if _, err := w.orders.Cancel(t.Context(), w.merchant, canceled); err != nil {
		t.Fatal(err)
	}
	w.drain()
	for id, want := range map[string]string{won: "succeeded", declined: "failed", canceled: "canceled", lost: "succeeded"} {
		if s := w.status(id); s != want {
			t.Errorf("%s is %s, want %s", id, s, want)
		}
	}
	if n := w.count(`SELECT count(*) FROM sagas WHERE data ?| '{payment_method,payment_method_ciphertext}'`); n != 0 {
		t.Errorf("%d sagas remember", n)
	}
	if places := w.kept("pm_card_"); len(places) > 0 {
		t.Errorf("a payment method stands in %v", places)
	}
	w.audited()
}

// A saga that a process of an older version began has the token in its data.
func TestASagaOfVersion1GoesOn(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	w.exec(`UPDATE sagas SET version = 1, data = data - 'payment_method_ciphertext' || '{"payment_method": "pm_card_declined"}' WHERE id = $1`, w.sagaOf(id))
	w.settle()
	if got := w.ledger(id); w.status(id) != "failed" || !slices.Equal(got, []string{"authorization:declined"}) {
		t.Errorf("%s is %s after %v", id, w.status(id), got)
	}
	w.audited()
}
