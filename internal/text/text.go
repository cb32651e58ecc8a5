// Package text makes text that others wrote fit to be stored, logged and shown: what a
// provider, a broker, a webhook's receiver or a database says, in answers, ids, headers and
// errors. Postgres refuses a text that is not UTF-8 or has a NUL, jsonb and logs suffer from
// control characters, and a provider's body may have megabytes. A text that could not be
// stored would keep the outcome that it describes from being committed.
//
// It imports the standard library only.
package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const replacement = "\ufffd"

// Line is s on one line, for a person: valid UTF-8, each control character a space (NUL a
// replacement character, as what is no UTF-8), and at most limit characters, of which the
// last is … if s has more.
func Line(s string, limit int) string {
	return bounded(s, limit, func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	})
}

// Block is Line for a text of several lines: line feeds and tabs stay.
func Block(s string, limit int) string {
	return bounded(s, limit, func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	})
}

func bounded(s string, limit int, char func(rune) rune) string {
	if limit < 1 {
		return ""
	}
	// Not all of a text of megabytes is looked at: no character has more bytes.
	if most := (limit + 1) * utf8.UTFMax; len(s) > most {
		s = s[:most]
	}
	s = strings.Map(char, strings.ReplaceAll(strings.ToValidUTF8(s, replacement), "\x00", replacement))
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	n := 0
	for i := range s {
		if n == limit-1 {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// Name reports whether s can be kept as it is where it names something: 1 to limit
// characters of valid UTF-8 without control characters. A changed name would name something
// else, so that there is no making one fit.
func Name(s string, limit int) bool {
	return s != "" && len(s) <= limit*utf8.UTFMax && Line(s, limit) == s && !strings.Contains(s, replacement)
}
