package stripe

import "payments/internal/provider"

// stripeAmount turns the minor units of ISO 4217 into Stripe's, which are the
// same but for these (https://docs.stripe.com/currencies):
//
//   - ISK and UGX have no minor unit, but Stripe takes them with two decimals
//     that have to be zero.
//   - MGA has two decimals in ISO 4217 and none at Stripe.
//   - Of the currencies with three decimals the last has to be zero.
//
// refusal is a sentence about an amount that Stripe has no number for. A void has
// no amount.
func stripeAmount(op provider.Operation) (amount int64, refusal string) {
	if op.Type == provider.Void {
		return 0, ""
	}
	switch op.Currency {
	case "ISK", "UGX":
		return op.Amount * 100, ""
	case "MGA":
		if op.Amount%100 != 0 {
			return 0, "The provider takes " + op.Currency + " in whole units only."
		}
		return op.Amount / 100, ""
	case "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND":
		if op.Amount%10 != 0 {
			return 0, "The provider takes " + op.Currency + " with two decimals only."
		}
	}
	return op.Amount, ""
}

// minorUnits is the inverse of stripeAmount. An amount that Stripe has and ISO 4217
// does not is rounded down; Stripe takes no such amounts.
func minorUnits(amount int64, currency string) int64 {
	switch currency {
	case "ISK", "UGX":
		return amount / 100
	case "MGA":
		return amount * 100
	}
	return amount
}
