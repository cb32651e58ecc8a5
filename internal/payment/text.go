package payment

import (
	"errors"
	"fmt"
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
