package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ProblemError is a refusal: the service's problem document (RFC 9457). Branch on
// Code, never on the text; `GET /problems/{code}` says what each means. Of an answer
// that is no problem document, as a proxy's, Code is empty.
type ProblemError struct {
	Problem
	// IdempotencyKey of the request; empty for what takes none. Unless the Status is
	// 5xx nothing was written under it.
	IdempotencyKey string
	// RetryAfter is 0 where the answer did not say.
	RetryAfter time.Duration
	// Tries that were made.
	Tries int
}

func (e *ProblemError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "payments: %d", e.Status)
	if e.Code != "" {
		fmt.Fprintf(&b, " %s", e.Code)
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	for _, f := range e.Errors {
		fmt.Fprintf(&b, " %s %s (%s).", f.Pointer, f.Message, f.Code)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " [%s]", e.RequestID)
	}
	return b.String()
}

// NoAnswerError is a call whose outcome is not known: the last try was sent, or may
// have been, and nothing that can be read came back. Repeating the call with this
// IdempotencyKey is safe and tells the outcome.
type NoAnswerError struct {
	IdempotencyKey string // empty for what takes none
	Tries          int
	Err            error
}

func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("payments: no answer after %d tries: %v", e.Tries, e.Err)
}

func (e *NoAnswerError) Unwrap() error { return e.Err }

// CodeOf is the code of the problem in the error, or empty.
func CodeOf(err error) ProblemCode {
	if p, ok := errors.AsType[*ProblemError](err); ok {
		return p.Code
	}
	return ""
}

func problemOf(status int, header http.Header, body []byte) *ProblemError {
	e := &ProblemError{RetryAfter: retryAfter(header)}
	if mediaType, _, _ := mime.ParseMediaType(header.Get("Content-Type")); mediaType == "application/problem+json" {
		if err := json.Unmarshal(body, &e.Problem); err != nil {
			e.Problem = Problem{Detail: "a problem document that cannot be read"}
		}
	} else {
		e.Detail = http.StatusText(status)
	}
	e.Problem.Status = int32(status) //nolint:gosec // three digits
	if e.RequestID == "" {
		e.RequestID = header.Get("Request-Id")
	}
	return e
}

// maxRetryAfter is as good as never, and far from where a duration overflows.
const maxRetryAfter = 24 * time.Hour

// retryAfter understands seconds, which is what the service sends, and a date, which
// a proxy may send (RFC 9110, 10.2.3).
func retryAfter(header http.Header) (wait time.Duration) {
	given := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(given, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(given); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// mayRepeat is whether the service asks for the same request again.
func (e *ProblemError) mayRepeat() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return e.Code == ProblemCodeIdempotencyKeyInUse
}
