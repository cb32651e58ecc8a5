package secret

import (
	"bytes"
	"slices"
	"testing"
)

func TestTokensAreSealedAndRecognized(t *testing.T) {
	c := must[*Cipher](t)(ParseAEAD(must[string](t)(NewCipherKeyset())))
	first := must[string](t)(NewPepperKeyset())
	both, second := rotated(t, first)
	of := func(keyset string) *Tokens { return NewTokens("card", "pm_fp_", must[*Pepper](t)(ParseMAC(keyset)), c) }
	before, during, after := of(first), of(both), of(second)

	const token = "pm_1Nabcdefghijkl"
	fingerprint, sealed, err := before.Seal(token, "pay_1")
	if err != nil || bytes.Contains(sealed, []byte(token)) || !before.IsFingerprint(fingerprint) || before.IsFingerprint(token) {
		t.Fatalf("%s %x: %v", fingerprint, sealed, err)
	}
	if got, err := during.Open(sealed, "pay_1"); got != token || err != nil {
		t.Errorf("opened to %q: %v", got, err)
	}
	if _, err := before.Open(sealed, "pay_2"); err == nil {
		t.Error("the token of one row opens in another")
	}
	if _, err := NewTokens("email", "pm_fp_", before.pepper, c).Open(sealed, "pay_1"); err == nil {
		t.Error("a token of one kind opens as one of another")
	}
	again, other, err := before.Seal(token, "pay_2")
	if err != nil || again != fingerprint || bytes.Equal(other, sealed) {
		t.Errorf("the same token in another row: %s %x, %v", again, other, err)
	}
	fresh, _, err := during.Seal(token, "pay_1")
	if err != nil || fresh == fingerprint {
		t.Fatalf("%s: %v", fresh, err)
	}
	if !before.Current(fingerprint, sealed) || during.Current(fingerprint, sealed) || !during.Current(fresh, sealed) || after.Current(token, sealed) {
		t.Error("what was made under the primary keys is taken for what was not")
	}
	for _, c := range []struct {
		name string
		t    *Tokens
		want []string
	}{{"before", before, []string{fingerprint}}, {"during", during, []string{fresh, fingerprint}}, {"after", after, []string{fresh}}} {
		if got := c.t.Fingerprints(token); !slices.Equal(got, c.want) {
			t.Errorf("%s: found by %v, want %v", c.name, got, c.want)
		}
	}
	if got := during.Fingerprints(fingerprint); !slices.Equal(got, []string{fingerprint}) {
		t.Errorf("a fingerprint is found by %v", got)
	}
}
