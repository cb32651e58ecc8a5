package idempotency

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Fingerprint is SHA-256 over the method, the route and the body in canonical
// form: members sorted, white space and needless escapes removed, numbers as
// they were written (a float64 cannot tell 2^53 from 2^53+1). The route is the
// path with the values of its parameters. A body is JSON without duplicate
// members, or empty.
func Fingerprint(method, route string, body []byte) ([32]byte, error) {
	canonical := jsontext.Value(bytes.Clone(body))
	if len(canonical) > 0 {
		err := canonical.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false))
		if err != nil {
			return [32]byte{}, fmt.Errorf("fingerprint: the body is not JSON: %w", err)
		}
	}
	var framed []byte // each part behind its length, so that no part can pass for the end of another
	for _, part := range [][]byte{[]byte(method), []byte(route), canonical} {
		framed = binary.BigEndian.AppendUint64(framed, uint64(len(part)))
		framed = append(framed, part...)
	}
	return sha256.Sum256(framed), nil
}
