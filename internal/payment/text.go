package payment

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// validText is a person's text of 1 to limit characters on one line: valid UTF-8
// without control characters (NUL included, which Postgres cannot hold).
func validText(s string, limit int) error {
	switch n := utf8.RuneCountInString(s); {
	case !utf8.ValidString(s):
		return errors.New("must be valid UTF-8")
	case n == 0:
		return errors.New("must not be empty")
	case n > limit:
		return fmt.Errorf("must have at most %d characters", limit)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return errors.New("must not contain control characters")
		}
	}
	return nil
}

// CheckText refuses what is not 1 to limit characters of text on one line.
func CheckText(s string, limit int) error { return validText(s, limit) }

// MaxReason is the length of an operator's reason, in characters.
const MaxReason = 1000

// CheckReason refuses what is no line of text, and what says nothing: spaces alone.
func CheckReason(s string) error {
	if err := validText(s, MaxReason); err != nil {
		return err
	}
	if strings.Trim(s, " ") == "" {
		return errors.New("must say why")
	}
	return nil
}

// MaxHolder is the length of an API key's holder, in characters.
const MaxHolder = 64

// holderForm is words of printable ASCII, one space apart: but for case, what reads as one
// name is one text. Elsewhere in Unicode an accent has two forms, letters of two scripts look
// alike, and some spaces are not seen. openapi.yaml and is_holder in the database have the same.
var holderForm = regexp.MustCompile(`^[\x21-\x7e]+( [\x21-\x7e]+)*$`)

// CheckHolder refuses what cannot name the person or system that holds an API key.
func CheckHolder(s string) error {
	if len(s) > MaxHolder || !holderForm.MatchString(s) {
		return fmt.Errorf("must be 1 to %d printable ASCII characters, in words one space apart", MaxHolder)
	}
	return nil
}

// SamePerson reports whether two holders are one person: case does not matter. Nobody is the
// same person as an empty holder.
func SamePerson(a, b string) bool { return a != "" && strings.EqualFold(a, b) }

// CheckPaymentMethod refuses what is no token of the provider's.
func CheckPaymentMethod(s string) error { return validPaymentMethod(s) }

// timeForm is RFC 3339 as it stands there, while time.Parse takes hours of one digit
// and a comma before the fraction, too (go.dev/issue/54580). T and Z are capitals, and
// there is no leap second. openapi.yaml has the same.
var timeForm = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`)

// ParseTime takes a date-time of RFC 3339.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || !timeForm.MatchString(s) {
		return time.Time{}, errors.New("must be an RFC 3339 time like 2026-11-01T00:00:00Z; a + in a query is written %2B")
	}
	return t, nil
}

// validToken is 1 to limit ASCII letters, digits, dots, underscores and hyphens,
// beginning with a letter or digit.
func validToken(s string, limit int) error {
	if s == "" || len(s) > limit {
		return fmt.Errorf("must have 1 to %d characters", limit)
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return errors.New("must consist of letters, digits, dots, underscores and hyphens, and begin with a letter or digit")
		}
	}
	return nil
}
