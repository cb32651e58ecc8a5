package payment

import "errors"

// MaxAmount bounds every amount, in minor units. It keeps sums of amounts far
// from int64's end and every amount exact in a JSON reader that uses doubles.
const MaxAmount int64 = 999_999_999_999

// Currency is an active ISO 4217 code of a currency that can be paid in.
type Currency struct{ code string }

// ParseCurrency refuses unknown codes, lower case, and the codes that are no
// means of payment (XXX, XTS, metals, bond units, fund codes).
func ParseCurrency(code string) (Currency, error) {
	if _, ok := exponents[code]; !ok {
		return Currency{}, errors.New("must be an active ISO 4217 currency code in capitals, like EUR")
	}
	return Currency{code}, nil
}

func (c Currency) String() string { return c.code }

// Exponent is the number of decimal digits of the minor unit: 2 for EUR, 0 for JPY, 3 for KWD.
func (c Currency) Exponent() int { return exponents[c.code] }

// Money is an amount of at least 0 and at most MaxAmount minor units. The zero
// Money has no currency and equals no constructed one.
type Money struct {
	amount   int64
	currency Currency
}

// NewMoney takes minor units.
func NewMoney(amount int64, c Currency) (Money, error) {
	switch {
	case c.code == "":
		return Money{}, errors.New("has no currency")
	case amount < 0 || amount > MaxAmount:
		return Money{}, errors.New("must be from 0 to 999999999999 minor units")
	}
	return Money{amount, c}, nil
}

// Amount is in minor units.
func (m Money) Amount() int64      { return m.amount }
func (m Money) Currency() Currency { return m.currency }
