package main

import (
	"regexp"
	"strings"
)

// word is a run of letters that is a word of prose or a part of a name, in lower case.
type word struct {
	text       string
	start, end int
}

// split returns the words of a text. ParkedKey, parkedKey and parked_key have two each, HTTPServer too.
func split(text string) []word {
	var words []word
	for i := 0; i < len(text); {
		if !letter(text[i]) {
			i++
			continue
		}
		start := i
		for i < len(text) && upper(text[i]) {
			i++
		}
		if i < len(text) && lower(text[i]) {
			if i-start > 1 { // of HTTPServer, the S begins the next word
				words = append(words, word{strings.ToLower(text[start : i-1]), start, i - 1})
				start = i - 1
			}
			for i < len(text) && lower(text[i]) {
				i++
			}
		}
		words = append(words, word{strings.ToLower(text[start:i]), start, i})
	}
	return words
}

// between matches what may stand between two words of a phrase: nothing within a name, or one
// space, or a line end with the marks of a comment or a quotation.
var between = regexp.MustCompile(`^(?:[ _-]?|[ \t]*\r?\n[ \t]*(?://|#|--|\*|>|##)?[ \t]*)$`)

func matches(text string, words []word, phrase []string) bool {
	if len(words) < len(phrase) {
		return false
	}
	for i, want := range phrase {
		if words[i].text != want || i > 0 && !between.MatchString(text[words[i-1].end:words[i].start]) {
			return false
		}
	}
	return true
}

func nameStart(text string, i int) int {
	for i > 0 && inName(text[i-1]) {
		i--
	}
	return i
}

func nameEnd(text string, i int) int {
	for i < len(text) && inName(text[i]) {
		i++
	}
	return i
}

func lower(c byte) bool  { return 'a' <= c && c <= 'z' }
func upper(c byte) bool  { return 'A' <= c && c <= 'Z' }
func letter(c byte) bool { return lower(c) || upper(c) }
func inName(c byte) bool { return letter(c) || c == '_' || '0' <= c && c <= '9' }
