package readmodel

import (
	"strconv"

	"payments/internal/payment"
	"payments/internal/readmodel/term"
)

// Cursor is where a page of payments ended: what its last one is ordered by.
type Cursor struct {
	ID     string
	Amount int64
	Term   string // of a search
}

// Fields are what a cursor holds of it, for CursorOf.
func (p Cursor) Fields() []string { return []string{p.ID, strconv.FormatInt(p.Amount, 10), p.Term} }

// CursorOf is false for what Fields would not have given.
func CursorOf(fields []string) (*Cursor, bool) {
	if len(fields) != 3 || !payment.ValidID(payment.PrefixPayment, fields[0]) {
		return nil, false
	}
	amount, err := strconv.ParseInt(fields[1], 10, 64)
	return &Cursor{ID: fields[0], Amount: amount, Term: fields[2]}, err == nil && term.Fold(fields[2]) == fields[2]
}
