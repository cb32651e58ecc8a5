package readmodel

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"payments/internal/payment"
)

// Limits of a page's length.
const (
	DefaultLimit = 20
	MaxLimit     = 100
)

// Filter narrows a list; a zero member does not. CreatedFrom and CreatedTo are
// the half-open span [from, to). After is a page's NextCursor and holds for the
// same filters only.
type Filter struct {
	Status      string
	Customer    string
	Order       string
	Currency    string
	CreatedFrom time.Time
	CreatedTo   time.Time
	Limit       int
	After       string
}

const invalidQuery = "The query is not valid."

var cursorInvalid = payment.FieldError{
	Pointer: "/query/cursor", Code: "cursor_invalid", Message: "must be the next_cursor of a page with the same filters",
}

// ParseFilter reads the query of GET /v1/payments. Its error is a *payment.Error
// with one field for each refused parameter.
func ParseFilter(query url.Values) (Filter, error) {
	f := Filter{Limit: DefaultLimit}
	var fields []payment.FieldError
	refuse := func(pointer, code, message string) {
		fields = append(fields, payment.FieldError{Pointer: pointer, Code: code, Message: message})
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		set := f.setter(name)
		switch {
		case set == nil: // without its name: an answer never repeats what was submitted
			refuse("/query", "parameter_unknown", "has a parameter that is not known here")
		case len(query[name]) != 1:
			refuse("/query/"+name, "parameter_repeated", "must be given once")
		default:
			if code, message := set(query[name][0]); code != "" {
				refuse("/query/"+name, code, message)
			}
		}
	}
	if !f.CreatedFrom.IsZero() && !f.CreatedTo.IsZero() && !f.CreatedFrom.Before(f.CreatedTo) {
		refuse("/query/created_to", "out_of_range", "must be after created_from")
	}
	if len(fields) == 0 && query.Has("cursor") {
		if _, ok := f.position(); !ok {
			fields = append(fields, cursorInvalid)
		}
	}
	if len(fields) > 0 {
		return Filter{}, &payment.Error{Code: payment.CodeInvalid, Message: invalidQuery, Fields: fields}
	}
	return f, nil
}

// setter is nil for an unknown parameter. What it returns for a refused value is
// the code and message of the field's error.
func (f *Filter) setter(name string) func(value string) (code, message string) {
	switch name {
	case "status":
		return func(value string) (string, string) {
			if _, ok := payment.ParseStatus(value); !ok {
				return "status_invalid", "must be a payment's status"
			}
			f.Status = value
			return "", ""
		}
	case "currency":
		return func(value string) (string, string) {
			if _, err := payment.ParseCurrency(value); err != nil {
				return "currency_invalid", err.Error()
			}
			f.Currency = value
			return "", ""
		}
	case "customer":
		return setReference(&f.Customer)
	case "order":
		return setReference(&f.Order)
	case "created_from":
		return setTime(&f.CreatedFrom)
	case "created_to":
		return setTime(&f.CreatedTo)
	case "limit":
		return func(value string) (string, string) {
			n, err := strconv.ParseUint(value, 10, 8)
			if err != nil || n < 1 || n > MaxLimit {
				return "out_of_range", fmt.Sprintf("must be from 1 to %d", MaxLimit)
			}
			f.Limit = int(n)
			return "", ""
		}
	case "cursor":
		return func(value string) (string, string) { // held against the filters when all are read
			f.After = value
			return "", ""
		}
	}
	return nil
}

// setReference refuses what no stored reference can be, NUL above all, which
// Postgres would refuse with an error.
func setReference(to *string) func(string) (string, string) {
	return func(value string) (string, string) {
		n := utf8.RuneCountInString(value)
		for _, r := range value {
			if unicode.IsControl(r) {
				n = 0
			}
		}
		if n < 1 || n > payment.MaxReference || !utf8.ValidString(value) {
			return "text_invalid", fmt.Sprintf("must be 1 to %d characters of text", payment.MaxReference)
		}
		*to = value
		return "", ""
	}
}

func setTime(to *time.Time) func(string) (string, string) {
	return func(value string) (string, string) {
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return "time_invalid", "must be an RFC 3339 time"
		}
		*to = t
		return "", ""
	}
}

// digestLength guards against mistakes, not forgers: a cursor names a place in a
// list, and the scope alone decides what can be seen there.
const digestLength = 8

// cursor is base64url of the last payment's id and a digest of the filters.
func (f Filter) cursor(lastID string) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte(lastID), f.digest()...))
}

// position is false for every text that cursor would not have written.
func (f Filter) position() (lastID string, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(f.After)
	if err != nil || len(b) <= digestLength {
		return "", false
	}
	lastID = string(b[:len(b)-digestLength])
	return lastID, payment.ValidID(payment.PrefixPayment, lastID) && f.cursor(lastID) == f.After
}

// digest leaves the limit out: pages may change their length on the way.
func (f Filter) digest() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %s %s", f.Status, f.Customer, f.Order, f.Currency,
		f.CreatedFrom.UTC().Format(time.RFC3339Nano), f.CreatedTo.UTC().Format(time.RFC3339Nano)))
	return sum[:digestLength]
}
