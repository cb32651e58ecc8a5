package order_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"payments/internal/order"
	"payments/internal/payment"
)

// The database has lost a payment that the provider has. The audit and the comparison name the
// payment until an operator has given its money back at the provider, and not after that.
func TestAPaymentThatIsGoneIsNamedUntilItsMoneyIsGivenBack(t *testing.T) {
	w := newWorld(t)
	var keys int
	atTheBank := func(path string, body map[string]any) (id string) {
		t.Helper()
		document, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		keys++
		var made struct{ ID string }
		if err := json.Unmarshal(w.requestWith(fmt.Sprint("gone-", keys), http.MethodPost, path, string(document), http.StatusCreated), &made); err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	named := func(reference, when string, want bool) {
		t.Helper()
		found := strings.Join(w.violations(), "\n")
		if got := strings.Contains(found, reference+" is at the provider only"); got != want || !want && found != "" {
			t.Errorf("%s: the audit has %q", when, found)
		}
		var compared []string
		if _, err := w.orders.CompareRange(t.Context(), order.RangeComparison{
			From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Minute), Pause: unpaced,
			Found: func(d order.Difference) error {
				compared = append(compared, d.PaymentID+" "+string(d.Kind))
				return nil
			},
		}); err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(compared, reference+" "+string(order.NotOurs)); got != want || !want && len(compared) > 0 {
			t.Errorf("%s: the comparison has %q", when, compared)
		}
	}
	authorize := func() (reference, authorization string) {
		t.Helper()
		reference = w.ids.New(payment.PrefixPayment)
		return reference, atTheBank("/v1/authorizations", map[string]any{"reference": reference, "amount": 4998, "currency": "EUR", "payment_method": "pm_card_visa"})
	}

	declined := w.ids.New(payment.PrefixPayment)
	w.requestWith("declined", http.MethodPost, "/v1/authorizations",
		fmt.Sprintf(`{"reference": %q, "amount": 4998, "currency": "EUR", "payment_method": "pm_card_declined"}`, declined), http.StatusPaymentRequired)
	named(declined, "declined", false)
	reference, authorization := authorize()
	named(reference, "authorized", true)
	atTheBank("/v1/voids", map[string]any{"reference": reference, "authorization": authorization})
	named(reference, "voided", false)

	reference, authorization = authorize()
	capture := atTheBank("/v1/captures", map[string]any{"reference": reference, "authorization": authorization, "amount": 4998, "currency": "EUR"})
	named(reference, "captured", true)
	refund := map[string]any{"reference": reference, "capture": capture, "amount": 998, "currency": "EUR"}
	atTheBank("/v1/refunds", refund)
	named(reference, "refunded in part", true)
	refund["amount"] = 4000
	last := atTheBank("/v1/refunds", refund)
	named(reference, "refunded", false)
	atTheBank("/v1/refund_failures", map[string]any{"reference": reference, "refund": last})
	named(reference, "a refund has failed", true)

}
