package report

import (
	"cmp"
	"slices"
)

// NameMethods puts what name makes of a group's example in the place of each payment
// method's fingerprint. While the pepper is rotated, one payment method has two
// fingerprints, whose rows become one here, and rows are in the order of the names.
func NameMethods(rows []ApprovalRow, name func(r ApprovalRow) (string, error)) ([]ApprovalRow, error) {
	for i := range rows {
		r := &rows[i]
		if r.PaymentMethod != "" {
			var err error
			if r.PaymentMethod, err = name(*r); err != nil {
				return nil, err
			}
		}
		r.Example, r.PaymentMethodCiphertext = "", nil
	}
	slices.SortStableFunc(rows, compareGroups)
	named := rows[:0]
	for _, r := range rows {
		last := len(named) - 1
		if last < 0 || compareGroups(named[last], r) != 0 {
			named = append(named, r)
			continue
		}
		into := &named[last]
		into.Payments, into.Approved, into.Declined = into.Payments+r.Payments, into.Approved+r.Approved, into.Declined+r.Declined
		into.Rate = newRate(into.Approved, into.Approved+into.Declined)
	}
	return named, nil
}

func compareGroups(a, b ApprovalRow) int {
	return cmp.Or(cmp.Compare(a.Period, b.Period), cmp.Compare(a.Merchant, b.Merchant), cmp.Compare(a.Currency, b.Currency),
		cmp.Compare(a.PaymentMethod, b.PaymentMethod))
}
