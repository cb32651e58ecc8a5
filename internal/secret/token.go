package secret

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// Tokens keeps tokens of one kind that have to be used again, shown and counted: the
// token itself encrypted, and beside it a fingerprint, which is the same for the same
// token, so that rows can be searched and grouped by it. Whoever has the database
// alone can neither read a token nor test a guess at one; that two rows have the same
// is all that it shows.
type Tokens struct {
	kind, prefix string
	pepper       *Pepper
	cipher       *Cipher
}

// NewTokens of a kind, which parts its MACs and ciphertexts from those of all others.
// A fingerprint begins with prefix.
func NewTokens(kind, prefix string, p *Pepper, c *Cipher) *Tokens { return &Tokens{kind, prefix, p, c} }

// fingerprintLength in characters, behind the prefix: base64 of a MAC with its version.
var fingerprintLength = base64.RawURLEncoding.EncodedLen(len("\x01vers") + tagSize)

// Seal binds the token to its row: moved to another, the ciphertext does not decrypt.
func (t *Tokens) Seal(token, row string) (fingerprint string, ciphertext []byte, err error) {
	if ciphertext, err = t.cipher.Encrypt([]byte(token), t.data(row)); err != nil {
		return "", nil, fmt.Errorf("%s of %s: %w", t.kind, row, err)
	}
	return t.fingerprint(t.pepper.MAC(t.data(token))), ciphertext, nil
}

// Open gives the token that was sealed for the row.
func (t *Tokens) Open(ciphertext []byte, row string) (string, error) {
	token, err := t.cipher.Decrypt(ciphertext, t.data(row))
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w", t.kind, row, err)
	}
	return string(token), nil
}

// Fingerprints are all that the token may be stored under, the newest first: one for
// each key of the pepper. A fingerprint stands for itself, for those who see no more.
func (t *Tokens) Fingerprints(token string) []string {
	if t.IsFingerprint(token) {
		return []string{token}
	}
	var all []string
	for _, mac := range t.pepper.MACs(t.data(token)) {
		all = append(all, t.fingerprint(mac))
	}
	return all
}

// IsFingerprint tells a fingerprint from a token by its form.
func (t *Tokens) IsFingerprint(s string) bool {
	rest, ok := strings.CutPrefix(s, t.prefix)
	return ok && len(rest) == fingerprintLength
}

func (t *Tokens) fingerprint(mac []byte) string {
	return t.prefix + base64.RawURLEncoding.EncodeToString(mac)
}

func (t *Tokens) data(of string) []byte { return []byte(t.kind + "|" + of) }

// Current reports whether both were made under the primary keys.
func (t *Tokens) Current(fingerprint string, ciphertext []byte) bool {
	mac, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(fingerprint, t.prefix))
	return err == nil && t.IsFingerprint(fingerprint) && t.pepper.Current(mac) && t.cipher.Current(ciphertext)
}
