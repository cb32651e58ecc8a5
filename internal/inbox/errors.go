package inbox

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"payments/internal/postgres"
	"payments/internal/text"
)

var (
	errNoID   = errors.New("the message has no usable " + HeaderID + " header")
	errBehind = errors.New("waits behind an earlier message of its key")
	errOld    = errors.New("the message's id is older than those that are kept, and nobody can tell whether it was applied")
	errDied   = errors.New("the process died, or its transaction could not be committed,")
)

// The fingerprints of blocked keys that are not made of their errors' texts.
const (
	// fingerprintGap: the key waits for a message that is missing, and goes on when it comes.
	fingerprintGap = "gap"
	// fingerprintConflict: the messages contradict what was applied.
	fingerprintConflict = "conflict"
)

type permanentError struct {
	error
	fingerprint string // when not empty
}

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error as one that no later attempt can mend. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err, ""}
}

// Gap is a permanent error of a message that can be applied only after an earlier one of
// its key, which has not come. It may come still, by another partition. The message waits, and
// is applied in the order of HeaderSequence when the missing one has come.
func Gap(err error) error { return permanentError{err, fingerprintGap} }

// Conflict is a permanent error of a message that contradicts another that was applied:
// its key has two histories, and a person has to say which is true.
func Conflict(err error) error { return permanentError{err, fingerprintConflict} }

// permanent: a later attempt would end alike.
func permanent(err error) bool {
	_, ok := errors.AsType[permanentError](err)
	return ok || postgres.DataError(err)
}

// abandoned: the attempt ended for a reason that lies in no message. A statement
// that takes too long may well be the message's own (Inbox.well).
func abandoned(ctx context.Context, err error) bool {
	return ctx.Err() != nil || postgres.Unavailable(err) && !postgres.TimedOut(err)
}

// commitError is an error of the commit itself, after which it is open whether it took effect.
type commitError struct{ error }

func (e *commitError) Unwrap() error { return e.error }

// finishError is one of Config.Finish.
type finishError struct{ error }

func (e *finishError) Unwrap() error { return e.error }

// refused reports whether the messages may be at fault for a transaction that failed
// outside of the handler: a value was refused, the handler's effects were by a check that
// is deferred to the commit, or its end failed. All else is the database's fault.
func refused(err error) bool {
	if errors.Is(err, ErrFenced) {
		return false
	}
	if permanent(err) {
		return true
	}
	if postgres.Unavailable(err) || errors.Is(err, context.Canceled) {
		return false
	}
	_, finishing := errors.AsType[*finishError](err)
	_, committing := errors.AsType[*commitError](err)
	pg, answered := errors.AsType[*pgconn.PgError](err)
	return finishing || committing && answered && pg.Code[:2] != "XX"
}

// probeTimeout is how long a database that is well takes to write one row, at most.
const probeTimeout = time.Second

// well reports whether the database commits a row promptly. It is asked when a
// statement of the handler has timed out: if the database is slow for everybody, the
// message is not at fault. The row is never visible.
func (in *Inbox) well(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := postgres.InTx(ctx, in.pool, func(tx pgx.Tx) error {
		id := "probe_" + rand.Text()
		if _, err := Once(ctx, tx, in.consumer, id, time.Time{}); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM inbox_messages WHERE consumer = $1 AND made_on = $2 AND message_id = $3`, in.consumer, madeOn(id), id)
		return err
	})
	return err == nil
}

const maxReason = 4000 // characters: enough for a panic's own frames

func reasonOf(err error) string {
	return text.Block(err.Error(), maxReason)
}

// variable is what differs between two occurrences of one error: identifiers
// (TypeIDs, UUIDs, digests) and numbers.
var variable = regexp.MustCompile(`[a-z_]*_[0-7][0-9a-hjkmnp-tv-z]{25}\b|\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|0x[0-9a-fA-F]+|\b[0-9a-f]{16,}\b|\d+`)

// fingerprintOf is that of the error for which a message is a dead letter.
func fingerprintOf(err error) string {
	if p, ok := errors.AsType[permanentError](err); ok && p.fingerprint != "" {
		return p.fingerprint
	}
	return fingerprint(reasonOf(err))
}

// fingerprint groups blocked keys by what ails them: alike for errors whose first
// lines differ in identifiers and numbers only.
func fingerprint(reason string) string {
	line, _, _ := strings.Cut(reason, "\n")
	sum := sha256.Sum256([]byte(variable.ReplaceAllString(line, "#")))
	return hex.EncodeToString(sum[:6])
}
