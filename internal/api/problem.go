package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/go-json-experiment/json"

	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// The codes that only HTTP gives.
const (
	codeJSONInvalid        payment.Code = "json_invalid"
	codeMethodNotAllowed   payment.Code = "method_not_allowed"
	codeBodyTooLarge       payment.Code = "body_too_large"
	codeBodyTimeout        payment.Code = "body_timeout"
	codeContentType        payment.Code = "content_type_unsupported"
	codeRateLimited        payment.Code = "rate_limited"
	codeOverloaded         payment.Code = "overloaded"
	codeTooManyHeld        payment.Code = "too_many_held_requests"
	codeTooManyStreams     payment.Code = "too_many_streams" // what codeTooManyHeld was for streams alone
	codeLastEventIDInvalid payment.Code = "last_event_id_invalid"
	codeEventsExpired      payment.Code = "events_expired"
	codeVersionUnknown     payment.Code = "payments_version_unknown"
)

const maxFieldErrors = 100

var (
	errInternal    = payment.Errorf(payment.CodeInternal, "Something went wrong on our side. It was logged under the request id.")
	errUnavailable = payment.Errorf(payment.CodeServiceUnavailable,
		"The service cannot do this right now. Repeat the request, with the same Idempotency-Key if it has one.")
)

// problemDocument is RFC 9457, with the extensions of the contract.
type problemDocument struct {
	Type      string               `json:"type"`
	Title     string               `json:"title"`
	Status    int                  `json:"status"`
	Detail    string               `json:"detail"`
	Code      payment.Code         `json:"code"`
	RequestID string               `json:"request_id"`
	Errors    []payment.FieldError `json:"errors,omitempty"`
	// Allowed is an empty list, and not missing, where the state allows nothing.
	Allowed []string `json:"allowed_actions,omitzero"`
}

// refuse answers err. What is no refusal of ours is logged here, once, and
// nowhere else.
func (s *server) refuse(ctx context.Context, w *recorder, err error) {
	var known *payment.Error
	switch {
	case errors.Is(err, idempotency.ErrMissing):
		known = payment.Errorf(payment.CodeKeyMissing, "This request needs an Idempotency-Key header.")
	case errors.Is(err, idempotency.ErrInvalid):
		known = payment.Errorf(payment.CodeKeyInvalid,
			"The Idempotency-Key header has to be one key of 1 to 255 visible ASCII characters, bare or in quotes.")
	case errors.Is(err, idempotency.ErrInUse):
		known = payment.Errorf(payment.CodeKeyInUse, "The first request with this key is still being committed. Repeat the request.")
	case errors.Is(err, idempotency.ErrReused):
		known = payment.Errorf(payment.CodeKeyReused, "This key belongs to another request. Use a new key for a new request.")
	case errors.As(err, &known) && problems[known.Code].status != 0:
	case errors.Is(err, context.Canceled):
		known = errUnavailable // to nobody: the client has gone
	case postgres.Unavailable(err), errors.Is(err, errOtherVersion):
		known = errUnavailable
		s.Log.WarnContext(ctx, "request refused for now", "request_id", w.requestID, "route", w.route, "error", err)
	default:
		known = errInternal
		s.Log.ErrorContext(ctx, "request failed", "request_id", w.requestID, "route", w.route, "error", err)
	}
	if s.Log.Enabled(ctx, slog.LevelDebug) {
		s.debug(ctx, w, "request refused", "code", known.Code, "fields", fieldCodes(known.Fields))
	}
	s.problem(ctx, w, known)
}

// fieldCodes are those of the refused fields, without the names that a client gave.
func fieldCodes(refused []payment.FieldError) []string {
	all := make([]string, len(refused))
	for i, f := range refused {
		all[i] = f.Code
	}
	return all
}

func (s *server) problem(ctx context.Context, w *recorder, e *payment.Error) {
	kind := problems[e.Code]
	switch e.Code { //nolint:exhaustive // the others have no header of their own
	case payment.CodeUnauthenticated:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case payment.CodeServiceUnavailable, codeTooManyHeld, payment.CodeReadAfterTimeout, payment.CodeReportNotReady, payment.CodeKeyInUse, codeOverloaded:
		w.Header().Set("Retry-After", "1")
	}
	s.write(ctx, w, kind.status, "application/problem+json", problemDocument{
		Type:  "/problems/" + string(e.Code),
		Title: kind.title, Status: kind.status, Detail: e.Message, Code: e.Code,
		RequestID: w.requestID, Errors: e.Fields[:min(len(e.Fields), maxFieldErrors)], Allowed: e.Allowed,
	})
}

func (s *server) write(ctx context.Context, w *recorder, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err == nil {
		body, err = w.inVersion(body)
	}
	if err != nil { // no value of ours can make it fail
		s.Log.ErrorContext(ctx, "encode answer", "request_id", w.requestID, "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error here is the client's connection
}
