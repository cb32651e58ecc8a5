// Package secrettest gives tests keys of their own.
package secrettest

import (
	"testing"

	"payments/internal/secret"
)

// Keys has one key in each keyset.
func Keys(tb testing.TB) (*secret.Pepper, *secret.Cipher) {
	tb.Helper()
	pepper, err := secret.NewPepperKeyset()
	if err != nil {
		tb.Fatal(err)
	}
	cipher, err := secret.NewCipherKeyset()
	if err != nil {
		tb.Fatal(err)
	}
	p, err := secret.ParseMAC(pepper)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := secret.ParseAEAD(cipher)
	if err != nil {
		tb.Fatal(err)
	}
	return p, c
}
