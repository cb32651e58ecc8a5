package access

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"payments/internal/payment"
	"payments/internal/secret"
)

// Mode lets a person tell keys of test and live installations apart. It is part of
// what the MAC covers.
type Mode string

const (
	ModeTest Mode = "test"
	ModeLive Mode = "live"
)

const (
	idLength     = 26
	secretLength = 32
	checkLength  = 7
	secretBytes  = 20
)

// crockford is Crockford's base32 alphabet in lower case, as in TypeIDs.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// Credential is an API key that was written without an error. Whether it was
// ever given to anybody only Authenticate says.
type Credential struct {
	Mode  Mode
	KeyID string
	maced string // all but the check digits
}

// Format keeps the secret out of every %v.
func (c Credential) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.KeyID) }

// FormatKey writes an API key; keyID is a TypeID key_….
func FormatKey(mode Mode, keyID string, random [secretBytes]byte) string {
	key := "sk_" + string(mode) + "_" + strings.TrimPrefix(keyID, payment.PrefixKey+"_") + crockford.EncodeToString(random[:])
	return key + checkDigits(key)
}

// ParseKey finds typing errors offline. Its errors never repeat the key.
func ParseKey(s string) (Credential, error) {
	mode, rest := ModeTest, ""
	for _, m := range []Mode{ModeTest, ModeLive} {
		if r, ok := strings.CutPrefix(s, "sk_"+string(m)+"_"); ok {
			mode, rest = m, r
		}
	}
	if rest == "" {
		return Credential{}, errors.New("an API key begins with sk_test_ or sk_live_")
	}
	if len(rest) != idLength+secretLength+checkLength {
		return Credential{}, fmt.Errorf("an API key has %d characters behind its prefix", idLength+secretLength+checkLength)
	}
	id := payment.PrefixKey + "_" + rest[:idLength]
	random, err := crockford.DecodeString(rest[idLength : idLength+secretLength])
	if !payment.ValidID(payment.PrefixKey, id) || err != nil || len(random) != secretBytes {
		return Credential{}, errors.New("an API key is written in 0-9 and a-z without i, l, o and u")
	}
	maced := s[:len(s)-checkLength]
	if s[len(maced):] != checkDigits(maced) { // computed from what was sent: nothing here is secret
		return Credential{}, errors.New("the API key's check digits do not fit: it was mistyped")
	}
	return Credential{mode, id, maced}, nil
}

// checkDigits are the CRC-32 (IEEE), big endian, in 7 characters.
func checkDigits(s string) string {
	return crockford.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s))))
}

// Key is what is stored of an API key. MerchantID is empty for an operator. Holder is
// whom it was given to, and may be empty of a merchant's.
type Key struct {
	ID         string
	MerchantID string
	Role       Role
	Holder     string
	MAC        []byte
	Networks   []netip.Prefix // from where it may be used; none is anywhere
	ExpiresAt  *time.Time
	// APIVersion is what its requests are answered in that name none.
	APIVersion string
	// Seed of a key that waits for a second person (split.go); without one the key works at once.
	Seed []byte
	// Replaces is the key whose place it takes, and Overlap how long both work.
	Replaces string
	Overlap  time.Duration
}

// NewKey makes an API key and what to store of it. The text exists nowhere else:
// it is shown once. gen.Random has to be cryptographically strong.
func NewKey(gen payment.Generator, pepper *secret.Pepper, spec KeySpec) (text string, k Key, err error) {
	if spec.Mode != ModeTest && spec.Mode != ModeLive {
		return "", Key{}, errors.New("an API key's mode is test or live")
	}
	var random [secretBytes]byte
	if _, err := io.ReadFull(gen.Random, random[:]); err != nil {
		return "", Key{}, fmt.Errorf("no randomness for an API key: %w", err)
	}
	text = FormatKey(spec.Mode, gen.New(payment.PrefixKey), random)
	k, err = StoredKey(pepper, text, spec)
	return text, k, err
}

// StoredKey is what to store of an API key that exists already, as one that a
// deployment brings with it, and has its mode in the text.
func StoredKey(pepper *secret.Pepper, text string, spec KeySpec) (Key, error) {
	c, err := ParseKey(text)
	if err != nil {
		return Key{}, err
	}
	k := Key{
		ID: c.KeyID, MerchantID: spec.MerchantID, Role: spec.Role, Holder: spec.Holder, MAC: pepper.MAC([]byte(c.maced)),
		Networks: spec.Networks, ExpiresAt: spec.ExpiresAt, APIVersion: spec.APIVersion,
	}
	return k, k.Check()
}

// Check refuses what is stored and no constructor makes. What the MAC is of only
// Authenticate sees.
func (k Key) Check() error {
	switch {
	case !payment.ValidID(payment.PrefixKey, k.ID):
		return errors.New("an API key's id is key_…")
	case len(k.Networks) > MaxNetworks:
		return fmt.Errorf("an API key has at most %d networks", MaxNetworks)
	case !slices.Contains(Roles(), k.Role):
		return fmt.Errorf("an API key's role is one of %v", Roles())
	case k.Role.OfMerchant() && !payment.ValidID(payment.PrefixMerchant, k.MerchantID):
		return errors.New("a merchant's API key needs a merchant id mer_…")
	case !k.Role.OfMerchant() && k.MerchantID != "":
		return errors.New("the API key of a role that reads all belongs to no merchant")
	case !k.Role.OfMerchant() && k.Holder == "":
		return errors.New("the API key of a role that reads all needs a holder")
	}
	if k.Holder != "" {
		if err := payment.CheckHolder(k.Holder); err != nil {
			return fmt.Errorf("an API key's holder %w", err)
		}
	}
	if _, err := time.Parse(time.DateOnly, k.APIVersion); err != nil {
		return errors.New("an API key's version is a date YYYY-MM-DD")
	}
	return nil
}
