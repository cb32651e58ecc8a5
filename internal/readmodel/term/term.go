// Package term says by which words a payment is found, and what a search means.
// It imports no other package of the service.
package term

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

const (
	// maxLength of a term in characters: as much as a reference has.
	maxLength = 64
	// maxWords of one reference; what begins behind the last of them is found by
	// what stands before it.
	maxWords = 8
)

// Fold makes one text of what a person takes for the same: without regard to case,
// accents and compatibility forms. It is empty when nothing is left.
func Fold(s string) string {
	if !ascii(s) {
		// Transformers and casers keep state, so each use has its own.
		plain := transform.Chain(norm.NFKD, runes.Remove(runes.In(unicode.Mn)), cases.Fold(), norm.NFC)
		folded, _, err := transform.String(plain, s)
		if err != nil {
			return ""
		}
		s = folded
	} else {
		s = strings.ToLower(s)
	}
	return cut(s)
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func cut(s string) string {
	if len(s) <= maxLength {
		return s
	}
	n := 0
	for i := range s {
		if n == maxLength {
			return s[:i]
		}
		n++
	}
	return s
}

// Of gives the folded references, each from its beginning and from that of each
// further word, once and in order: "Order A-17" is found by "order a-17", "a-17"
// and "17".
func Of(references ...string) []string {
	var all []string
	for _, r := range references {
		folded, words, inWord := Fold(r), 0, false
		for i, c := range folded {
			begins := unicode.IsLetter(c) || unicode.IsNumber(c)
			if (i == 0 || begins && !inWord) && words < maxWords {
				all = append(all, folded[i:])
				words++
			}
			inWord = begins
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Range holds the terms that begin with the search's folded text: from, and below
// to, in the order of bytes.
func Range(folded string) (from, to string) { return folded, folded + string(unicode.MaxRune) }

// First is the least of the references' terms in the range: the one by which a
// payment is shown that has several.
func First(folded string, references ...string) string {
	for _, t := range Of(references...) {
		if strings.HasPrefix(t, folded) {
			return t
		}
	}
	return ""
}
