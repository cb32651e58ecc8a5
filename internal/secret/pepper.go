package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/mac/hmac"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const (
	tagSize    = 32 // bytes: the whole HMAC-SHA256
	minKeySize = 32 // bytes
)

// Pepper makes HMAC-SHA256 MACs of high-entropy secrets: whoever has the
// database alone can neither recompute nor guess them. It is safe for concurrent use.
type Pepper struct {
	mac     tink.MAC
	primary []byte // begins every MAC of the primary key
	older   []tink.MAC
}

// NewPepperKeyset makes a fresh value for ParseMAC.
func NewPepperKeyset() (string, error) { return generate(mac.HMACSHA256Tag256KeyTemplate()) }

// ParseMAC reads a keyset of HMAC-SHA256 keys of at least 256 bits, with 256-bit
// tags. Its error completes a sentence that begins with the variable's name.
func ParseMAC(keysetBase64JSON string) (*Pepper, error) {
	h, err := parse(keysetBase64JSON)
	if err != nil {
		return nil, err
	}
	return newPepper(h)
}

func newPepper(h *keyset.Handle) (*Pepper, error) {
	for i := range h.Len() {
		entry, err := h.Entry(i)
		if err != nil {
			return nil, errors.New("holds a key that cannot be read")
		}
		key, ok := entry.Key().(*hmac.Key)
		if !ok {
			return nil, errors.New("holds a key that is not an HMAC key")
		}
		p, ok := key.Parameters().(*hmac.Parameters)
		if !ok || p.HashType() != hmac.SHA256 || p.CryptographicTagSizeInBytes() != tagSize || p.KeySizeInBytes() < minKeySize {
			return nil, errors.New("holds an HMAC key that is not SHA-256 with a 256-bit key and tag")
		}
	}
	m, err := mac.New(h)
	if err != nil {
		return nil, errors.New("has no usable primary key")
	}
	primary, err := h.Primary()
	if err != nil {
		return nil, errors.New("has no usable primary key")
	}
	key, ok := primary.Key().(*hmac.Key)
	if !ok || len(key.OutputPrefix()) == 0 {
		return nil, errors.New("has a primary key without a version (its output prefix is RAW): it could not be rotated")
	}
	p := &Pepper{mac: m, primary: key.OutputPrefix()}
	for i := range h.Len() {
		entry, err := h.Entry(i)
		if err != nil || entry.IsPrimary() || entry.KeyStatus() != keyset.Enabled {
			continue
		}
		older, err := alone(h, entry.KeyID())
		if err != nil {
			return nil, err
		}
		p.older = append(p.older, older)
	}
	return p, nil
}

// alone makes MACs by one key of the keyset.
func alone(h *keyset.Handle, id uint32) (tink.MAC, error) {
	m := keyset.NewManagerFromHandle(h)
	if err := m.SetPrimary(id); err != nil {
		return nil, errors.New("holds a key that cannot be used")
	}
	one, err := m.Handle()
	if err != nil {
		return nil, errors.New("holds a key that cannot be used")
	}
	made, err := mac.New(one)
	if err != nil {
		return nil, errors.New("holds a key that cannot be used")
	}
	return made, nil
}

// MAC is deterministic as long as the primary key is the same: Tink's prefix of
// 5 bytes with the key's version, then 32 bytes.
func (p *Pepper) MAC(data []byte) []byte { return compute(p.mac, data) }

// MACs are those of every enabled key, the primary's first: what was stored under
// any of them is found by one of these.
func (p *Pepper) MACs(data []byte) [][]byte {
	all := [][]byte{p.MAC(data)}
	for _, m := range p.older {
		all = append(all, compute(m, data))
	}
	return all
}

func compute(m tink.MAC, data []byte) []byte {
	made, err := m.ComputeMAC(data)
	if err != nil {
		panic(fmt.Sprintf("secret: HMAC cannot fail: %v", err))
	}
	return made
}

// Verify compares in constant time, with any enabled key.
func (p *Pepper) Verify(mac, data []byte) bool { return p.mac.VerifyMAC(mac, data) == nil }

// Current reports whether the MAC names the primary key as the one that made it;
// one that does not should be made anew while what it is of is at hand.
func (p *Pepper) Current(mac []byte) bool { return bytes.HasPrefix(mac, p.primary) }

// Format keeps the keys out of every %v.
func (*Pepper) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "secret.Pepper") }
