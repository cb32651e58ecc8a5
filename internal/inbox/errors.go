package inbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"

	"payments/internal/postgres"
)

var (
	errNoID   = errors.New("the message has no usable " + HeaderID + " header")
	errBehind = errors.New("waits behind an earlier message of its key")
	errOld    = errors.New("the message's id is older than those that are kept, and nobody can tell whether it was applied")
	errDied   = errors.New("the process died, or its transaction could not be committed,")
)

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error as one that no later attempt can mend. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

// permanent: a later attempt would end alike.
func permanent(err error) bool {
	_, ok := errors.AsType[permanentError](err)
	return ok || postgres.DataError(err)
}

// abandoned: the attempt ended for a reason that lies in no message. A statement
// that takes too long may well be the message's own.
func abandoned(ctx context.Context, err error) bool {
	return ctx.Err() != nil || postgres.Unavailable(err) && !postgres.TimedOut(err)
}

const maxReason = 4000 // bytes: enough for a panic's own frames

func reasonOf(err error) string {
	why := clean(err.Error())
	if len(why) > maxReason {
		why = strings.ToValidUTF8(why[:maxReason], "")
	}
	return why
}

// variable is what differs between two occurrences of one error: identifiers
// (TypeIDs, UUIDs, digests) and numbers.
var variable = regexp.MustCompile(`[a-z_]*_[0-7][0-9a-hjkmnp-tv-z]{25}\b|\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|0x[0-9a-fA-F]+|\b[0-9a-f]{16,}\b|\d+`)

// fingerprint groups parked keys by what ails them: alike for errors whose first
// lines differ in identifiers and numbers only.
func fingerprint(reason string) string {
	line, _, _ := strings.Cut(reason, "\n")
	sum := sha256.Sum256([]byte(variable.ReplaceAllString(line, "#")))
	return hex.EncodeToString(sum[:6])
}
