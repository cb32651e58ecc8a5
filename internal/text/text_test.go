package text

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLineAndBlock(t *testing.T) {
	for _, c := range []struct {
		in          string
		limit       int
		line, block string
	}{
		{"", 5, "", ""},
		{"plain é 日本", 20, "plain é 日本", "plain é 日本"},
		{"a\x00b\nc\td\x7fe\u0085f", 20, "a\ufffdb c d e f", "a\ufffdb\nc\td e f"},
		{"verf\xfcgbar", 20, "verf\ufffdgbar", "verf\ufffdgbar"},
		{"a\u2028b", 9, "a b", "a\u2028b"},
		{"12345", 5, "12345", "12345"},
		{"123456", 5, "1234…", "1234…"},
		{"日本語日本語", 3, "日本…", "日本…"},
		{"a", 0, "", ""},
		{strings.Repeat("\xff", 4<<20), 3, "\ufffd", "\ufffd"}, // one replacement for a run
		{strings.Repeat("x", 4<<20), 3, "xx…", "xx…"},
	} {
		if got := Line(c.in, c.limit); got != c.line {
			t.Errorf("Line(%.20q, %d) = %q, want %q", c.in, c.limit, got, c.line)
		}
		if got := Block(c.in, c.limit); got != c.block {
			t.Errorf("Block(%.20q, %d) = %q, want %q", c.in, c.limit, got, c.block)
		}
	}
}

func TestName(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "pi_123": true, "a b": true, "日本": true, "12345678": true, "123456789": false, "a\x00": false, "\xff": false, "a\n": false, "\ufffd": false,
	} {
		if got := Name(s, 8); got != want {
			t.Errorf("Name(%q) = %t", s, got)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("verf\xfcgbar\x00", 4)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = min(max(limit, 0), 1000)
		got := Line(s, limit)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > limit || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("Line(%q, %d) = %q", s, limit, got)
		}
		if Line(got, limit) != got {
			t.Errorf("Line of %q is another", got)
		}
		if Name(s, limit) && (got != s || s == "") {
			t.Errorf("%q is a name", s)
		}
	})
}
