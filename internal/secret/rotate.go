package secret

import (
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/mac/hmac"
)

// AddKey gives the keyset one more key of its kind, which is accepted and makes
// nothing yet: every process has to know it before one uses it. Errors of this and of
// PromoteKey and DropOldKeys complete a sentence that begins with the variable's name.
func AddKey(keysetBase64JSON string) (string, error) {
	h, err := parse(keysetBase64JSON)
	if err != nil {
		return "", err
	}
	primary, err := h.Primary()
	if err != nil {
		return "", errors.New("has no usable primary key")
	}
	template := aead.AES256GCMKeyTemplate()
	if _, pepper := primary.Key().(*hmac.Key); pepper {
		template = mac.HMACSHA256Tag256KeyTemplate()
	}
	m := keyset.NewManagerFromHandle(h)
	if _, err := m.Add(template); err != nil {
		return "", errors.New("takes no further key")
	}
	return encodeManaged(m)
}

// PromoteKey makes the newest key the primary, with which all is made from now on.
func PromoteKey(keysetBase64JSON string) (string, error) {
	h, err := parse(keysetBase64JSON)
	if err != nil {
		return "", err
	}
	newest, err := h.Entry(h.Len() - 1)
	if err != nil || newest.IsPrimary() {
		return "", errors.New("has no key newer than its primary: add one first")
	}
	m := keyset.NewManagerFromHandle(h)
	if err := m.SetPrimary(newest.KeyID()); err != nil {
		return "", errors.New("has a newest key that is not enabled")
	}
	return encodeManaged(m)
}

// DropOldKeys leaves the primary alone: what was made with another is of no use from
// then on.
func DropOldKeys(keysetBase64JSON string) (string, error) {
	h, err := parse(keysetBase64JSON)
	if err != nil {
		return "", err
	}
	m := keyset.NewManagerFromHandle(h)
	for i := range h.Len() {
		entry, err := h.Entry(i)
		if err != nil {
			return "", errors.New("holds a key that cannot be read")
		}
		if entry.IsPrimary() {
			continue
		}
		if err := m.Delete(entry.KeyID()); err != nil {
			return "", errors.New("holds a key that cannot be removed")
		}
	}
	return encodeManaged(m)
}

func encodeManaged(m *keyset.Manager) (string, error) {
	h, err := m.Handle()
	if err != nil {
		return "", errors.New("would not be a keyset any more")
	}
	return encode(h)
}

// ShareKey tells whether two keysets have a key in common, as those before and after a
// step of a rotation do. Its errors complete a sentence about the first keyset.
func ShareKey(keysetBase64JSON, otherBase64JSON string) (bool, error) {
	h, err := parse(keysetBase64JSON)
	if err != nil {
		return false, err
	}
	other, err := parse(otherBase64JSON)
	if err != nil {
		return false, fmt.Errorf("has a predecessor that %w", err)
	}
	for i := range h.Len() {
		for j := range other.Len() {
			a, err := h.Entry(i)
			b, otherErr := other.Entry(j)
			if errors.Join(err, otherErr) != nil {
				return false, errors.New("holds a key that cannot be read")
			}
			if a.Key().Equal(b.Key()) {
				return true, nil
			}
		}
	}
	return false, nil
}
