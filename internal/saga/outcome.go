package saga

import (
	"time"

	"payments/internal/text"
)

// Verdict of an attempt.
type Verdict string

// NotFound is a lookup's verdict only: the other system has no such operation
// (yet, as long as a request may be in flight).
const (
	Succeeded Verdict = "succeeded"
	Rejected  Verdict = "rejected"
	NotFound  Verdict = "not_found"
	Unknown   Verdict = "unknown"

	// notSent is the engine's own: the circuit opened between intent and call.
	notSent Verdict = "not_sent"
)

// Outcome of an attempt. Code and Detail say why it was rejected or is unknown;
// Reference is the other system's name of the operation.
type Outcome struct {
	Verdict   Verdict `json:"verdict"`
	Code      string  `json:"code,omitempty"`
	Detail    string  `json:"detail,omitempty"`
	Reference string  `json:"reference,omitempty"`
	// InFlight: the outcome is unknown and the request may yet be carried out.
	InFlight bool `json:"-"`
	// Pending: the outcome is unknown to the other system as well, which has the
	// operation and will end it by itself. That says nothing against its health.
	Pending bool `json:"-"`
	// Again, of an outcome that was not found or is unknown, says when to ask anew: for
	// a step that only looks, whatever a key's lifetime is. 0 leaves that to the policy.
	Again time.Duration `json:"-"`

	testified bool // by persons, whom the other system may yet belie

	// When the call began, or its timeout before it ended if it ran past that: the
	// policy's horizon counts from here. The zero time means now.
	sent time.Time
}

const (
	maxCode      = 64   // characters
	maxDetail    = 1000 // characters
	maxReference = 255  // bytes
)

// CodeReference is the code of an operation whose name cannot be stored.
const CodeReference = "reference_unusable"

// storable is an outcome that can be committed, whatever the other system wrote. Codes and
// details are made fit. A name that is changed would name another operation: an outcome whose
// Reference cannot be kept is unknown.
func (o Outcome) storable() Outcome {
	o.Code, o.Detail = text.Line(o.Code, maxCode), text.Line(o.Detail, maxDetail)
	if o.Reference != "" && (len(o.Reference) > maxReference || !text.Name(o.Reference, maxReference)) {
		o.Reference = ""
		if o.Verdict == Succeeded {
			o.Verdict, o.Code, o.Detail = Unknown, CodeReference, "The operation's name cannot be stored."
		}
	}
	return o
}

// answered is whether the other system did so, as one in health does.
func (o Outcome) answered() bool { return o.Verdict != Unknown || o.Pending }

// Rejection is why a saga turned back, or why it was parked. Unproven says that
// the step it turned back from was sent and never found, or found wanting by persons: if it is carried out
// after all, nothing of this saga undoes it.
type Rejection struct {
	Step     string `json:"step"`
	Code     string `json:"code"`
	Detail   string `json:"detail"`
	Unproven bool   `json:"unproven,omitempty"`
}

// The codes of the engine's own rejections.
const (
	CodeDeadline   = "deadline_exceeded"
	CodeUnresolved = "unresolved"
)
