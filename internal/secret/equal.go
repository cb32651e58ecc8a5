package secret

import (
	"crypto/sha256"
	"crypto/subtle"
)

// Equal is the one comparison of what must not be learned from the time it takes:
// a MAC with the right one, a token with the one that is expected. It compares
// digests of one length, and so tells neither where a and b begin to differ nor
// whether their lengths do; what it costs grows with the lengths alone. Pepper.Verify
// is the same for what is stored as a MAC, by Tink's own constant-time comparison.
//
// A test of this package refuses ==, bytes.Equal and their like on secrets
// everywhere else.
func Equal(a, b []byte) bool {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
