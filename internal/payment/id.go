package payment

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
)

// Prefixes of the identifiers in this system.
const (
	PrefixPayment  = "pay"
	PrefixOrder    = "ord"
	PrefixSaga     = "sag"
	PrefixEvent    = "evt"
	PrefixRefund   = "ref"
	PrefixKey      = "key"
	PrefixMerchant = "mer"
	PrefixRequest  = "req"
	PrefixEndpoint = "whe"
	PrefixDelivery = "whd"
	PrefixDispute  = "dsp"
	PrefixChange   = "pch" // of the provider
	PrefixKeyAct   = "kac"
)

// crockford is the lower-case base32 alphabet of the TypeID specification.
const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

const suffixLength = 26

// Generator makes TypeIDs (https://github.com/jetify-com/typeid, v0.3.0): a
// prefix, an underscore and a UUIDv7 (RFC 9562) in 26 characters of base32, so
// that identifiers sort by the millisecond they were made in. It is safe for
// concurrent use when Now and Random are.
type Generator struct {
	Now    func() time.Time
	Random io.Reader
}

// New panics when Random fails: without randomness no identifier is safe to use.
func (g Generator) New(prefix string) string {
	var u [16]byte
	if _, err := io.ReadFull(g.Random, u[6:]); err != nil {
		panic(fmt.Sprintf("payment: no randomness for an identifier: %v", err))
	}
	ms := uint64(g.Now().UnixMilli())
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], ms)
	copy(u[:6], b[2:])
	u[6] = u[6]&0x0f | 0x70 // version 7
	u[8] = u[8]&0x3f | 0x80 // variant
	return prefix + "_" + encodeSuffix(u)
}

// encodeSuffix writes 128 bits as 26 characters; the first carries only 3 bits.
func encodeSuffix(u [16]byte) string {
	hi, lo := binary.BigEndian.Uint64(u[:8]), binary.BigEndian.Uint64(u[8:])
	var out [suffixLength]byte
	for i := suffixLength - 1; i >= 0; i-- {
		out[i] = crockford[lo&0x1f]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(out[:])
}

// ValidID reports whether s is a TypeID with this prefix.
func ValidID(prefix, s string) bool {
	suffix, ok := strings.CutPrefix(s, prefix+"_")
	if !ok || len(suffix) != suffixLength || suffix[0] > '7' {
		return false
	}
	for i := range len(suffix) {
		if strings.IndexByte(crockford, suffix[i]) < 0 {
			return false
		}
	}
	return true
}

// IDTime is the millisecond in which the identifier was made; false when s is
// no TypeID of this prefix.
func IDTime(prefix, s string) (time.Time, bool) {
	if !ValidID(prefix, s) {
		return time.Time{}, false
	}
	// The first 10 characters hold 50 bits less the two that overflow: 48 bits of milliseconds.
	var ms int64
	for _, c := range []byte(s[len(prefix)+1 : len(prefix)+1+10]) {
		ms = ms<<5 | int64(strings.IndexByte(crockford, c))
	}
	return time.UnixMilli(ms), true
}

// FirstID sorts before every identifier with the prefix that was made at t or later, to
// the millisecond, and behind all that were made before.
func FirstID(prefix string, t time.Time) string {
	var u [16]byte
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(max(t.UnixMilli(), 0)))
	copy(u[:6], b[2:])
	return prefix + "_" + encodeSuffix(u)
}
