package secret

import (
	"bytes"
	"crypto/rand"
	"testing"

	"payments/internal/secret/dudect"
)

// seen keeps the compiler from leaving a comparison out.
var seen int

func count(equal bool) {
	if equal {
		seen++
	}
}

func random(into []byte) { _, _ = rand.Read(into) } // never fails (crypto/rand)

// nearly is right but for its last byte: an early exit takes longest with it.
func nearly(right []byte) []byte {
	guess := bytes.Clone(right)
	guess[len(guess)-1] ^= 1
	return guess
}

func TestEqualTellsNothingByItsTime(t *testing.T) {
	for _, size := range []int{32, 1024} {
		right := make([]byte, size)
		random(right)
		dudect.Run(t, dudect.Experiment{
			Fixed: nearly(right), Random: random,
			Subject: func(guess []byte) { count(Equal(guess, right)) },
			Control: func(guess []byte) { count(bytes.Equal(guess, right)) },
		})
	}
}

// The place where an API key is verified, with what is stored of it; the control
// is a key stored as it is, and compared as text.
func TestAnAPIKeyTellsNothingByItsTime(t *testing.T) {
	p := must[*Pepper](t)(ParseMAC(must[string](t)(NewPepperKeyset())))
	right := make([]byte, 66)
	random(right)
	mac, text := p.MAC(right), string(right)
	dudect.Run(t, dudect.Experiment{
		Fixed: nearly(right), Random: random,
		Subject: func(guess []byte) { count(p.Verify(mac, guess)) },
		Control: func(guess []byte) { count(string(guess) == text) },
	})
	// And with the MAC in the guess's place, which is what Verify compares in the end.
	dudect.Run(t, dudect.Experiment{
		Fixed: nearly(mac), Random: func(into []byte) {
			random(into)
			copy(into, mac[:5]) // the key's version is public
		},
		Subject: func(guess []byte) { count(p.Verify(guess, right)) },
		Control: func(guess []byte) { count(bytes.Equal(guess, mac)) },
	})
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"", "a", false}, {"a", "aa", false}, {"a\x00", "a", false},
	} {
		if got := Equal([]byte(c.a), []byte(c.b)); got != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
	}
}
