package payment

import (
	"fmt"
	"strings"
)

// Code is a stable name of a problem, part of the contract with clients.
type Code string

// The codes that the domain and its stores give.
const (
	CodeInvalid            Code = "validation_failed"
	CodeNotFound           Code = "not_found"
	CodeOrderAlreadyPaid   Code = "order_already_paid"
	CodeOrderInProgress    Code = "order_in_progress"
	CodeActionNotAllowed   Code = "action_not_allowed"
	CodeRefundExceeds      Code = "refund_exceeds_captured"
	CodeSagaState          Code = "saga_state"
	CodeSecondOperator     Code = "second_operator_required"
	CodeKeyMissing         Code = "idempotency_key_missing"
	CodeKeyInvalid         Code = "idempotency_key_invalid"
	CodeKeyReused          Code = "idempotency_key_reused"
	CodeKeyInUse           Code = "idempotency_key_in_use"
	CodeUnauthenticated    Code = "unauthenticated"
	CodeForbidden          Code = "forbidden"
	CodeAPIKeyInactive     Code = "api_key_inactive"
	CodeSignatureInvalid   Code = "signature_invalid"
	CodeDeadLetterMoved    Code = "parked_message_moved"
	CodeWebhookLimit       Code = "webhook_limit"
	CodeWebhookDisabled    Code = "webhook_endpoint_disabled"
	CodeServiceUnavailable Code = "service_unavailable"
	CodeReadAfterInvalid   Code = "read_after_invalid"
	CodeReadAfterTimeout   Code = "read_after_timeout"
	CodeReportNotReady     Code = "report_not_ready"
	CodeInternal           Code = "internal_error"
)

// FieldError is one refused member of a request. Pointer is a JSON pointer
// (RFC 6901) into the submitted document. Message never repeats the value.
type FieldError struct {
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error is the one error type that reaches a client: a code, a sentence for a
// person, and the refused fields when the input was at fault.
type Error struct {
	Code    Code
	Message string
	Fields  []FieldError
	// Allowed are, for CodeActionNotAllowed, the actions that the payment's state allows.
	Allowed []string
	cause   error
}

// Errorf makes an Error without fields.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Because keeps the cause for logs; it is never shown to a client.
func (e *Error) Because(err error) *Error {
	c := *e
	c.cause = err
	return &c
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Code, e.Message)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "; %s: %s", f.Pointer, f.Message)
	}
	if e.cause != nil {
		fmt.Fprintf(&b, ": %v", e.cause)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.cause }

// violations collects every refused field of one value, so that a client learns
// of all of them at once.
type violations []FieldError

func (v *violations) add(pointer, code, format string, args ...any) {
	*v = append(*v, FieldError{Pointer: pointer, Code: code, Message: fmt.Sprintf(format, args...)})
}

func (v violations) err(subject string) error {
	if len(v) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalid, Message: "The " + subject + " is not valid.", Fields: v}
}
