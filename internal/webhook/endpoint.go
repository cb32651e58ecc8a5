package webhook

import (
	"slices"
	"time"

	"payments/internal/payment"
)

// AllEvents asks for every type of event, those of later versions included.
const AllEvents = "*"

// MaxEndpoints of a merchant, so that none takes all of a dispatcher's slots.
const MaxEndpoints = 10

// MaxKeptEndpoints counts the deleted ones, too, until they are reaped (Retention), so that no
// merchant fills the table by making and deleting.
const MaxKeptEndpoints = 100

// Endpoint is where a merchant wants to be told. Its secret is not part of it.
type Endpoint struct {
	MerchantID string
	ID         string
	URL        string
	Events     []string // types, or AllEvents alone
	// DisabledReason is gone (it answered 410), failing (MaxExhausted deliveries in a
	// row failed for good) or, while it is enabled, empty.
	DisabledReason string
	DisabledAt     *time.Time
	FailingSince   *time.Time // no attempt has succeeded since
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Draft is an endpoint that may be made. There is no other way to one.
type Draft struct {
	url    string
	events []string
}

// NewDraft's error is a *payment.Error with one field for each refused member.
func NewDraft(g Guard, url string, events []string) (Draft, error) {
	var fields []payment.FieldError
	if code, message := g.checkURL(url); code != "" {
		fields = append(fields, payment.FieldError{Pointer: "/url", Code: code, Message: message})
	}
	if code, message := checkEvents(events); code != "" {
		fields = append(fields, payment.FieldError{Pointer: "/events", Code: code, Message: message})
	}
	if len(fields) > 0 {
		return Draft{}, &payment.Error{Code: payment.CodeInvalid, Message: "The webhook endpoint is not valid.", Fields: fields}
	}
	return Draft{url, slices.Clone(events)}, nil
}

func checkEvents(events []string) (code, message string) {
	const invalid, sentence = "events_invalid", `must be a list of different types of events, or ["*"]`
	if len(events) == 0 {
		return invalid, sentence
	}
	if len(events) == 1 && events[0] == AllEvents {
		return "", ""
	}
	for i, e := range events {
		if !slices.Contains(payment.EventTypes, payment.EventType(e)) || slices.Contains(events[:i], e) {
			return invalid, sentence
		}
	}
	return "", ""
}
