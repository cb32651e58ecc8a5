package secret

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Cipher encrypts what has to be read again. It is safe for concurrent use.
type Cipher struct {
	aead    tink.AEAD
	primary []byte // begins every ciphertext of the primary key
	uses    *atomic.Int64
}

// MostUses is what one key of AES-GCM may encrypt with random nonces of 96 bits: after 2^32
// messages two of them have the same nonce with a probability of 2^-32 (NIST SP 800-38D, 8.3).
const MostUses = 1 << 32

// Uses gives the version of the primary key, and how often it has encrypted since the last call.
func (c *Cipher) Uses() (key string, n int64) {
	return hex.EncodeToString(c.primary[len(c.primary)-4:]), c.uses.Swap(0)
}

// Unused takes uses back that could not be counted, for the next call of Uses.
func (c *Cipher) Unused(n int64) { c.uses.Add(n) }

// NewCipherKeyset makes a fresh value for ParseAEAD: one AES-256-GCM key.
func NewCipherKeyset() (string, error) { return generate(aead.AES256GCMKeyTemplate()) }

// ParseAEAD reads a keyset of AEAD keys. Its error completes a sentence that
// begins with the variable's name.
func ParseAEAD(keysetBase64JSON string) (*Cipher, error) {
	h, err := parse(keysetBase64JSON)
	if err != nil {
		return nil, err
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, errors.New("holds a key that is not for authenticated encryption (AEAD)")
	}
	primary, err := h.Primary()
	if err != nil {
		return nil, errors.New("has no usable primary key")
	}
	prefixed, ok := primary.Key().(interface{ OutputPrefix() []byte })
	if !ok || len(prefixed.OutputPrefix()) == 0 {
		return nil, errors.New("has a primary key without a version (its output prefix is RAW): it could not be rotated")
	}
	return &Cipher{a, prefixed.OutputPrefix(), &atomic.Int64{}}, nil
}

// Encrypt binds the ciphertext to associatedData, which names the row and the
// column it is kept in: moved to another place, it does not decrypt.
func (c *Cipher) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	c.uses.Add(1)
	ciphertext, err := c.aead.Encrypt(plaintext, associatedData)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return ciphertext, nil
}

// Decrypt does not tell a wrong key, wrong associated data and a changed
// ciphertext apart.
func (c *Cipher) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	plaintext, err := c.aead.Decrypt(ciphertext, associatedData)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return plaintext, nil
}

// Current reports whether the ciphertext names the primary key as the one that made
// it; another needs an older key to be read.
func (c *Cipher) Current(ciphertext []byte) bool { return bytes.HasPrefix(ciphertext, c.primary) }

// Format keeps the keys out of every %v.
func (*Cipher) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "secret.Cipher") }
