package payment

import "time"

// DisputeStatus is where a dispute of a payment stands.
type DisputeStatus string

// A dispute is open until the customer's bank has decided. A decision can be changed.
const (
	DisputeOpen DisputeStatus = "open"
	DisputeWon  DisputeStatus = "won"
	DisputeLost DisputeStatus = "lost"
)

// ParseDisputeStatus is false for a word that is none.
func ParseDisputeStatus(s string) (DisputeStatus, bool) {
	status := DisputeStatus(s)
	return status, status == DisputeOpen || status == DisputeWon || status == DisputeLost
}

// Dispute is the one that the newest event of a dispute told of; Amount is in minor
// units of Currency. Its members' names are
// those of a column of the read model.
type Dispute struct {
	ID        string        `json:"id"`
	Status    DisputeStatus `json:"status"`
	Amount    int64         `json:"amount"`
	Currency  string        `json:"currency"`
	Reason    string        `json:"reason"`
	RespondBy *time.Time    `json:"respond_by"` // nil: nothing is to be answered
	OpenedAt  time.Time     `json:"opened_at"`
}

// Disputed reports whether the customer's bank asks for the money, or has taken it.
func (d *Dispute) Disputed() bool { return d != nil && d.Status != DisputeWon }
