package simulator

import "time"

// strike is what befalls one request instead of a prompt answer. Its zero value
// is nothing.
type strike struct {
	kind    string
	latency time.Duration // late_applied, slow, late, reorder
}

const (
	outage         = "outage"          // the connection ends without an answer, nothing is done
	serverError    = "error"           // 500, nothing is done
	timeoutApplied = "timeout_applied" // done, never answered
	timeoutLost    = "timeout_lost"    // not done, never answered
	lateApplied    = "late_applied"    // never answered, done after the latency
	slow           = "slow"            // done and answered after the latency
)

// What befalls one notification instead of a prompt delivery.
const (
	duplicate = "duplicate" // delivered twice
	late      = "late"      // delivered after the latency
	reorder   = "reorder"   // delivered after the next one, or after the latency if none comes
	lost      = "lost"      // never delivered
)

const (
	lateLatency = 3 * time.Second
	slowLatency = 2 * time.Second

	notifyLatency = 10 * time.Second // late and reorder

	// holdLimit ends a connection that was never answered.
	holdLimit = 60 * time.Second
)

// methodStrikes has a strike for each of the first requests of one operation
// with such a payment method; those after them are answered normally.
var methodStrikes = map[string][]strike{
	"pm_card_timeout_applied": {{kind: timeoutApplied}},
	"pm_card_timeout_lost":    {{kind: timeoutLost}},
	"pm_card_late_applied":    {{kind: lateApplied, latency: lateLatency}},
	"pm_card_flaky":           {{kind: serverError}, {kind: serverError}},
	"pm_card_slow":            {{kind: slow, latency: slowLatency}},
}
