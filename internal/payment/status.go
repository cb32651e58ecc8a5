package payment

import "slices"

// Status is the state of a payment as clients see it.
type Status string

// The states of a payment.
const (
	StatusProcessing      Status = "processing"
	StatusRequiresCapture Status = "requires_capture" // authorized; the merchant says when to capture
	StatusRequiresReview  Status = "requires_review"  // parked for a person; not terminal
	StatusSucceeded       Status = "succeeded"
	StatusFailed          Status = "failed"
	StatusCanceled        Status = "canceled"
)

// transitions is the whole state machine; a trigger in the database repeats it.
var transitions = map[Status][]Status{
	StatusProcessing:      {StatusRequiresCapture, StatusSucceeded, StatusFailed, StatusCanceled, StatusRequiresReview},
	StatusRequiresCapture: {StatusProcessing, StatusSucceeded, StatusFailed, StatusCanceled, StatusRequiresReview},
	StatusRequiresReview:  {StatusProcessing, StatusRequiresCapture, StatusSucceeded, StatusFailed, StatusCanceled},
	StatusSucceeded:       nil,
	StatusFailed:          nil,
	StatusCanceled:        nil,
}

// Statuses are the states of a payment, in the order of its life.
func Statuses() []Status {
	return []Status{StatusProcessing, StatusRequiresCapture, StatusRequiresReview, StatusSucceeded, StatusFailed, StatusCanceled}
}

// ParseStatus is false for a word that is no status.
func ParseStatus(s string) (Status, bool) {
	_, ok := transitions[Status(s)]
	return Status(s), ok
}

// CanBecome reports whether a payment in this state may change to the other.
func (s Status) CanBecome(next Status) bool { return slices.Contains(transitions[s], next) }

// Terminal states never change again.
func (s Status) Terminal() bool {
	next, known := transitions[s]
	return known && len(next) == 0
}

// Settled reports whether there is an outcome to tell a client who waits:
// a terminal state, or one that only the merchant or a person can move.
func (s Status) Settled() bool {
	return s.Terminal() || s == StatusRequiresReview || s == StatusRequiresCapture
}

// Failure says why a payment failed: a stable code, the saga's step that was
// refused, and a sentence for a person.
type Failure struct {
	Code    string `json:"code"`
	Step    string `json:"step"`
	Message string `json:"message"`
}

// Actions that a merchant may take on a payment in this state, in words of the
// API's paths. A payment that is being canceled or captured still names them.
func (s Status) Actions() []string {
	switch s {
	case StatusProcessing:
		return []string{"cancel"}
	case StatusRequiresCapture:
		return []string{"cancel", "capture"}
	case StatusSucceeded:
		return []string{"refund"}
	case StatusRequiresReview, StatusFailed, StatusCanceled:
	}
	return []string{}
}
