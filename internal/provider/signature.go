package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"payments/internal/secret"
)

// signatureTolerance is how far a signature's time may be from ours, either way:
// what Stripe recommends, https://docs.stripe.com/webhooks/signature.
const signatureTolerance = 5 * time.Minute

const (
	maxSignatureHeader = 2048 // bytes
	maxSignatures      = 16   // in one header; a provider that rotates sends two
)

var (
	// ErrSignature does not tell what is wrong with the signature, nor which
	// secrets there are.
	ErrSignature = errors.New("the notification is not signed with a live secret")
	// ErrSignatureTime is for a signature that is right and out of tolerance: a
	// replay, or a clock that is wrong.
	ErrSignatureTime = errors.New("the notification was signed too long ago or in the future")
)

// signatures verifies a header of the form t=<seconds since 1970>,v1=<HMAC-SHA256
// of "t.body" in hex>, with any number of v1 and other members. The simulator
// signs as Stripe does.
type signatures struct {
	header  string
	secrets [][]byte // all of them live
	now     func() time.Time
}

func newSignatures(header string, secrets []string, now func() time.Time) (signatures, error) {
	s := signatures{header: header, now: now}
	for _, text := range secrets {
		if text == "" {
			return signatures{}, errors.New("a webhook's secret must not be empty")
		}
		s.secrets = append(s.secrets, []byte(text))
	}
	if len(s.secrets) == 0 || now == nil {
		return signatures{}, errors.New("webhooks need a secret and a clock")
	}
	return s, nil
}

func (s signatures) verify(h http.Header, body []byte) error {
	signed, given := parseSignature(h.Values(s.header))
	if matching(given, s.macs(signed, body), secret.Equal) == 0 {
		return ErrSignature
	}
	seconds, err := strconv.ParseInt(signed, 10, 64)
	if err != nil {
		return ErrSignature
	}
	if s.now().Sub(time.Unix(seconds, 0)).Abs() > signatureTolerance {
		return ErrSignatureTime
	}
	return nil
}

// macs are what the signature would have to be, by each secret.
func (s signatures) macs(signed string, body []byte) (all [][]byte) {
	for _, key := range s.secrets {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(signed + "."))
		mac.Write(body)
		all = append(all, mac.Sum(nil))
	}
	return all
}

// matching does the same work for every secret and every signature given, whichever
// of them is right, so that its time tells nothing as long as equal's does not.
func matching(given, want [][]byte, equal func(a, b []byte) bool) (n int) {
	for _, w := range want {
		for _, g := range given {
			if equal(g, w) {
				n++
			}
		}
	}
	return n
}

// parseSignature gives no signature for what is malformed. The text of the time
// is kept as it was signed.
func parseSignature(header []string) (signed string, given [][]byte) {
	if len(header) != 1 || len(header[0]) > maxSignatureHeader {
		return "", nil
	}
	for member := range strings.SplitSeq(header[0], ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(member), "=")
		switch name {
		case "t":
			if signed != "" {
				return "", nil
			}
			signed = value
		case "v1":
			mac, err := hex.DecodeString(value)
			if err != nil || len(mac) != sha256.Size || len(given) == maxSignatures {
				return "", nil
			}
			given = append(given, mac)
		}
	}
	return signed, given
}
