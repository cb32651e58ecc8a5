package api

import "testing"

func TestPlaces(t *testing.T) {
	p := places{most: 3, mostOfKey: 2}
	take := func(key, want string) func() {
		t.Helper()
		giveBack, bound := p.take(key)
		if bound != want {
			t.Fatalf("%s: bound %q, want %q", key, bound, want)
		}
		return giveBack
	}
	first := take("a", "")
	take("a", "")
	take("a", boundKey)
	last := take("b", "")
	take("c", boundProcess)
	take("a", boundKey)
	first()
	take("c", "")
	take("a", boundProcess)
	last()
	if got := len(p.keys()); got != 2 {
		t.Errorf("%d keys hold a place, want a and c", got)
	}
	take("a", "")
}
