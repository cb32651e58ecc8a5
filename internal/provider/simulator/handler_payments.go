package simulator

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
)

// paymentList is a page of the payments that something was done to in a span of time,
// each with all of its operations. Next is where the next page begins, as a text of
// digits, or empty after the last.
type paymentList struct {
	Object string          `json:"object"`
	Data   []listedPayment `json:"data"`
	Next   string          `json:"next"`
}

type listedPayment struct {
	Reference  string      `json:"reference"`
	Operations []operation `json:"operations"`
}

const (
	mostPayments = 100 // of one page
	mostPerPage  = 400 // operations, after which a page ends with the payment at hand
)

func (s *Simulator) listPayments(w http.ResponseWriter, r *http.Request) error {
	struck := s.faults.next(lookup)
	if err := s.strikeAtOnce(w, lookup, struck); err != nil {
		return err
	}
	span, err := readSpan(r.URL.RawQuery)
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
	list, err := s.ledger.payments(span)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

// span is a part of the ledger: the operations made from one timestamp up to, but not
// including, another, behind a sequence.
type span struct {
	from, to string
	after    uint64
}

func readSpan(rawQuery string) (span, error) {
	bad := func(format string, args ...any) (span, error) {
		return span{}, refuse(http.StatusBadRequest, "query_invalid", "", format, args...)
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return bad("The query cannot be parsed.")
	}
	var out span
	times := map[string]*string{"created_from": &out.from, "created_to": &out.to}
	for name, values := range query {
		if len(values) > 1 {
			return bad("A query parameter is given more than once.")
		}
		switch into, ok := times[name]; {
		case ok:
			at, err := time.Parse(time.RFC3339Nano, values[0])
			if err != nil {
				return bad("The query parameter %s must be a time by RFC 3339.", name)
			}
			*into = timestamp(at)
		case name == "after":
			if out.after, err = strconv.ParseUint(values[0], 10, 63); err != nil {
				return bad("The query parameter after must be the next of the page before.")
			}
		default:
			return bad("The query has a parameter other than created_from, created_to and after.")
		}
	}
	if out.from == "" || out.to == "" {
		return bad("The query needs created_from and created_to.")
	}
	return out, nil
}

// payments reads one page. Operations are in the order of their time, and none is
// ever removed, so that the first of the span is found by halves.
func (l *ledger) payments(in span) (list paymentList, err error) {
	list = paymentList{Object: "list", Data: []listedPayment{}}
	err = l.db.View(func(tx *bbolt.Tx) error {
		last := tx.Bucket(entryBucket).Sequence()
		next, err := in.first(tx, last)
		if err != nil {
			return err
		}
		seen, operations := map[string]bool{}, 0
		for scanned := 0; next <= last; next++ {
			if scanned++; scanned > pageScan || len(seen) == mostPayments || operations >= mostPerPage {
				list.Next = strconv.FormatUint(next-1, 10)
				return nil
			}
			e, err := readEntry(tx, sequenceKey(next))
			if err != nil {
				return err
			}
			reference := e.Operation.Reference
			if e.Operation.Created >= in.to {
				return nil
			}
			if seen[reference] {
				continue
			}
			seen[reference] = true
			p := listedPayment{Reference: reference}
			if err := eachUnder(tx.Bucket(refBucket), reference, nil, func(sequence []byte) (bool, error) {
				e, err := readEntry(tx, sequence)
				p.Operations = append(p.Operations, e.Operation)
				return true, err
			}); err != nil {
				return err
			}
			list.Data, operations = append(list.Data, p), operations+len(p.Operations)
		}
		return nil
	})
	if err != nil {
		return paymentList{}, fmt.Errorf("read the ledger: %w", err)
	}
	return list, nil
}

// first is the sequence of the span's first operation, or of none.
func (in span) first(tx *bbolt.Tx, last uint64) (sequence uint64, err error) {
	if in.after > 0 {
		return in.after + 1, nil
	}
	n := sort.Search(int(last), func(n int) bool { //nolint:gosec // a count of what fits a disk
		e, rerr := readEntry(tx, binary.BigEndian.AppendUint64(nil, uint64(n)+1)) //nolint:gosec // from 0 on
		if rerr != nil {
			err = rerr
		}
		return e.Operation.Created >= in.from
	})
	return uint64(n) + 1, err //nolint:gosec // from 0 on
}
