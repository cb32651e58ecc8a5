package webhook

import (
	"slices"
	"strconv"
	"strings"
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
	if at, code, message := checkEvents(events); code != "" {
		fields = append(fields, payment.FieldError{Pointer: at, Code: code, Message: message})
	}
	if len(fields) > 0 {
		return Draft{}, &payment.Error{Code: payment.CodeInvalid, Message: "The webhook endpoint is not valid.", Fields: fields}
	}
	return Draft{url, slices.Clone(events)}, nil
}

// checkEvents names the first event that is at fault.
func checkEvents(events []string) (at, code, message string) {
	const all, invalid = "/events", "events_invalid"
	if len(events) == 0 {
		return all, invalid, `must not be empty; ["*"] asks for every event`
	}
	if len(events) == 1 && events[0] == AllEvents {
		return "", "", ""
	}
	for i, e := range events {
		at := all + "/" + strconv.Itoa(i)
		switch {
		case e == AllEvents:
			return at, invalid, "must stand alone"
		case !slices.Contains(payment.EventTypes, payment.EventType(e)):
			return at, invalid, "must be one of " + eventNames() + `, or the list must be ["*"]`
		case slices.Contains(events[:i], e):
			return at, invalid, "must be given once"
		}
	}
	return "", "", ""
}

func eventNames() string {
	names := make([]string, len(payment.EventTypes))
	for i, e := range payment.EventTypes {
		names[i] = string(e)
	}
	return strings.Join(names, ", ")
}
