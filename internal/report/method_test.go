package report

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Two fingerprints of one payment method, as there are while a pepper is rotated.
func TestOnePaymentMethodIsOneGroup(t *testing.T) {
	row := func(method string, payments, approved, declined int64) ApprovalRow {
		return ApprovalRow{
			Group: Group{Period: "2026-11-24", PaymentMethod: method}, Payments: payments, Approved: approved, Declined: declined,
			Rate: newRate(approved, approved+declined), Example: "pay_1",
		}
	}
	named, err := NameMethods([]ApprovalRow{row("1 visa", 3, 2, 1), row("2 amex", 1, 0, 0), row("3 visa", 5, 4, 1)}, func(r ApprovalRow) (string, error) {
		_, name, _ := strings.Cut(r.PaymentMethod, " ")
		return name, nil
	})
	want := []ApprovalRow{row("amex", 1, 0, 0), row("visa", 8, 6, 2)}
	for i := range want {
		want[i].Example = ""
	}
	if diff := cmp.Diff(want, named); diff != "" || err != nil {
		t.Error(diff, err)
	}
}
