package provider

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	"payments/internal/secret"
	"payments/internal/secret/dudect"
)

func TestASignatureTellsNothingByItsTime(t *testing.T) {
	const signed, key = "1700000000", "whsec_of-the-test"
	body := []byte(`{"id":"evt_1"}`)
	s, err := newSignatures("Signature", []string{key}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(signed + "." + string(body)))
	right := mac.Sum(nil)
	if matching([][]byte{right}, s.macs(signed, body), secret.Equal) != 1 {
		t.Fatal("the right signature is refused")
	}
	nearly := bytes.Clone(right)
	nearly[len(nearly)-1] ^= 1
	compare := func(want func() [][]byte, equal func(a, b []byte) bool) func([]byte) {
		given := make([][]byte, maxSignatures)
		return func(guess []byte) {
			// As somebody would ask: a header full of the same guess makes the difference so many times as large.
			for i := range given {
				given[i] = guess
			}
			matching(given, want(), equal)
		}
	}
	made := func() [][]byte { return [][]byte{right} }
	e := dudect.Experiment{
		Fixed: nearly, Random: func(into []byte) { _, _ = rand.Read(into) },
		Subject: compare(made, secret.Equal), Control: compare(made, bytes.Equal),
	}
	dudect.Run(t, e)
	// The whole of the verification. It takes its MAC from the same noise that would hide the control.
	e.Subject = compare(func() [][]byte { return s.macs(signed, body) }, secret.Equal)
	dudect.Run(t, e)
}
