package payment

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// BusinessKey returns the one stored form of a name that a merchant gives: an order's
// reference, a customer's reference, an SKU. Two spellings that look the same must not
// become two orders, so the name is put into NFC and spaces at its ends are removed.
// Case, compatibility forms (fullwidth letters) and spaces inside stay significant.
//
// It refuses what nobody sees: control and format characters, default-ignorable code
// points, variation selectors, line separators, blank names, and code points that
// Unicode has not assigned, because their normalization is not settled yet. limit is in
// characters, both as given and as stored. is_business_key in the database repeats the rule.
func BusinessKey(s string, limit int) (string, error) {
	if err := validText(s, limit); err != nil {
		return "", err
	}
	key := norm.NFC.String(strings.TrimFunc(s, space))
	if key == "" {
		return "", errors.New("must not be blank")
	}
	// NFC can be longer: it does not compose everything that it decomposes.
	if utf8.RuneCountInString(key) > limit {
		return "", fmt.Errorf("must have at most %d characters in Unicode's form NFC", limit)
	}
	for _, r := range key {
		if invisible(r) {
			return "", errors.New("must not contain invisible or unassigned characters")
		}
	}
	return key, nil
}

// space is White_Space less the control characters, which are refused everywhere.
func space(r rune) bool { return unicode.Is(unicode.Z, r) }

// Invisible letters and symbols that no property of Unicode tells apart: BRAILLE PATTERN
// BLANK and MUSICAL SYMBOL NULL NOTEHEAD.
const (
	brailleBlank = '\u2800'
	nullNotehead = '\U0001D159'
)

func invisible(r rune) bool {
	return r == brailleBlank || r == nullNotehead || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cn, unicode.Zl, unicode.Zp,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
