package term

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTermsBeginAtEachWord(t *testing.T) {
	for _, c := range []struct {
		references []string
		want       []string
	}{
		{[]string{"A-1001", "cust-42"}, []string{"1001", "42", "a-1001", "cust-42"}},
		{[]string{"Order A-17"}, []string{"17", "a-17", "order a-17"}},
		{[]string{"Müller & Söhne"}, []string{"muller & sohne", "sohne"}},
		{[]string{"STRASSE 1", "Straße 1"}, []string{"1", "strasse 1"}},
		{[]string{"#7", "７"}, []string{"#7", "7"}}, // a full-width digit is a digit
		{[]string{"東京 1"}, []string{"1", "東京 1"}},
		{[]string{"", "-"}, []string{"-"}},
		{[]string{"1 2 3 4 5 6 7 8 9"}, []string{"1 2 3 4 5 6 7 8 9", "2 3 4 5 6 7 8 9", "3 4 5 6 7 8 9", "4 5 6 7 8 9", "5 6 7 8 9", "6 7 8 9", "7 8 9", "8 9"}},
	} {
		if got := Of(c.references...); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.references, got, c.want)
		}
	}
}

// An index entry has room for the longest reference in its longest folded form.
func TestTermsAreBounded(t *testing.T) {
	for _, r := range []string{strings.Repeat("ﷺ", 64), strings.Repeat("😀", 64), strings.Repeat("a", 64)} {
		for _, term := range Of(r) {
			if n := utf8.RuneCountInString(term); n > 64 || len(term) > 256 || !utf8.ValidString(term) {
				t.Errorf("%d characters, %d bytes", n, len(term))
			}
		}
	}
}

func TestARangeHoldsTheBeginningsAlone(t *testing.T) {
	from, to := Range(Fold("A-1"))
	for term, in := range map[string]bool{"a-1": true, "a-10": true, "a-1 \U0010FFFE": true, "a-0": false, "a-2": false, "a-": false, "b": false} {
		if got := term >= from && term < to; got != in {
			t.Errorf("%q: %t", term, got)
		}
	}
	if got := First(Fold("a"), "B-2", "ada a-1"); got != "a-1" {
		t.Errorf("first %q", got)
	}
	if got := First(Fold("z"), "B-2"); got != "" {
		t.Errorf("first %q", got)
	}
}
