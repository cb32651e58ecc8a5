package simulator

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/go-json-experiment/json"
)

func (s *Simulator) listOperations(w http.ResponseWriter, r *http.Request) error {
	struck := s.faults.next(lookup)
	if err := s.strikeAtOnce(w, lookup, struck); err != nil {
		return err
	}
	f, err := readFilter(r.URL.RawQuery)
	if err != nil {
		return err
	}
	switch struck.kind {
	case "":
	case slow:
		s.note(w, lookup, struck)
		s.takeLong(struck)
	default:
		s.note(w, lookup, struck)
		s.hold(r.Context())
	}
	return s.stream(w, f)
}

// stream holds one page in memory. A failure after the first page ends the
// connection, so that half a list is not taken for a whole one.
func (s *Simulator) stream(w http.ResponseWriter, f filter) error {
	last, err := s.ledger.lastSequence()
	if err != nil {
		return err
	}
	var page []operation
	var buffer bytes.Buffer
	buffer.WriteString(`{"object":"list","data":[`)
	for after, done, listed := uint64(0), false, 0; !done; {
		page, after, done, err = s.ledger.page(f, after, last)
		if err != nil {
			if listed > 0 {
				panic(http.ErrAbortHandler)
			}
			return err
		}
		for _, o := range page {
			if listed++; listed > 1 {
				buffer.WriteByte(',')
			}
			if err := json.MarshalWrite(&buffer, o); err != nil {
				return fmt.Errorf("encode an operation: %w", err)
			}
		}
		if done {
			buffer.WriteString("]}\n")
		}
		if listed > 0 || done {
			w.Header().Set("Content-Type", "application/json")
			if _, err := w.Write(buffer.Bytes()); err != nil {
				return nil //nolint:nilerr // the client is gone
			}
			buffer.Reset()
		}
	}
	return nil
}

func readFilter(rawQuery string) (filter, error) {
	bad := func(format string, args ...any) (filter, error) {
		return filter{}, refuse(http.StatusBadRequest, "query_invalid", "", format, args...)
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return bad("The query cannot be parsed.")
	}
	var f filter
	known := map[string]*string{"reference": &f.reference, "type": &f.operationType, "idempotency_key": &f.key}
	for name, values := range query {
		into, ok := known[name]
		switch {
		case !ok:
			return bad("The query has a parameter other than reference, type and idempotency_key.")
		case len(values) > 1:
			return bad("The query parameter %s is given more than once.", name)
		case !visible(values[0], maxText):
			return bad("The query parameter %s must have 1 to %d visible ASCII characters.", name, maxText)
		}
		*into = values[0]
	}
	types := []string{authorization, capture, void, refund, refundFailure, expiry, dispute, disputeClosure}
	if f.operationType != "" && !slices.Contains(types, f.operationType) {
		return bad("The query parameter type must be one of %q.", types)
	}
	return f, nil
}
