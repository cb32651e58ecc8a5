package idempotency

import (
	"errors"
	"strings"
)

const maxKeyLength = 255

var (
	ErrMissing = errors.New("the Idempotency-Key header is missing")
	ErrInvalid = errors.New("the Idempotency-Key header is not one key of 1 to 255 visible ASCII characters, bare or in quotes")
)

// ParseKey takes the values of the Idempotency-Key header. A key may stand bare
// or as a string of RFC 9651, section 3.3.3: abc and "abc" are the same key. In
// both forms it is 1 to 255 characters of 0x21 to 0x7e, counted without the
// quotes and escapes.
func ParseKey(header []string) (string, error) {
	if len(header) == 0 || len(header) == 1 && strings.Trim(header[0], " \t") == "" {
		return "", ErrMissing
	}
	if len(header) > 1 {
		return "", ErrInvalid
	}
	key, ok := unquote(strings.Trim(header[0], " \t"))
	if !ok || key == "" || len(key) > maxKeyLength {
		return "", ErrInvalid
	}
	for i := range len(key) {
		if key[i] < 0x21 || key[i] > 0x7e {
			return "", ErrInvalid
		}
	}
	return key, nil
}

// unquote leaves a bare key alone. Within quotes only \" and \\ are escapes, and
// the closing quote ends the value.
func unquote(s string) (string, bool) {
	if s[0] != '"' {
		return s, true
	}
	var key strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return key.String(), i == len(s)-1
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		key.WriteByte(s[i])
	}
	return "", false
}
