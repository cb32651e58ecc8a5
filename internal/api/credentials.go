package api

import (
	"errors"
	"strings"

	"payments/internal/payment"
)

// bearer is empty, and so no key, unless there is exactly one Bearer credential
// (RFC 6750; the scheme's name in any case).
func bearer(header []string) string {
	if len(header) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(header[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// withoutKey is the refusal of a request whose Authorization header has no Bearer credential, by
// what the header has instead. Of a key that is there it says nothing.
func withoutKey(header []string, err error) error {
	refusal, ok := errors.AsType[*payment.Error](err)
	if !ok || refusal.Code != payment.CodeUnauthenticated {
		return err
	}
	const form = "send `Authorization: Bearer sk_…`."
	scheme, token := "", ""
	if len(header) == 1 {
		scheme, token, _ = strings.Cut(header[0], " ")
	}
	var message string
	switch {
	case len(header) > 1:
		message = "There is more than one Authorization header: "
	case scheme == "":
		message = "There is no API key, since the Authorization header is missing or empty: "
	case strings.HasPrefix(scheme, "sk_"):
		message = "The word Bearer is missing before the API key: "
	case !strings.EqualFold(scheme, "Bearer"):
		message = "The Authorization header has another scheme than Bearer: "
	case strings.TrimSpace(token) == "":
		message = "There is no API key after the word Bearer: "
	default:
		return err
	}
	return payment.Errorf(payment.CodeUnauthenticated, "%s", message+form).Because(err)
}
