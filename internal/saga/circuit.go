package saga

import (
	"time"

	"github.com/sony/gobreaker/v2"
)

// circuit opens after tripAfter unknown outcomes in a row: while the other system
// is away, sagas wait instead of trying, and after a pause a few are let through.
type circuit struct {
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
}

const (
	tripAfter = 20
	tryAgain  = 5 // calls that are let through after the pause
)

type unclear struct{}

func (unclear) Error() string { return "the outcome is unknown" }

func newCircuit(pause time.Duration, changed func(open bool)) circuit {
	return circuit{gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "provider", MaxRequests: tryAgain, Timeout: pause,
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		OnStateChange: func(_ string, _, to gobreaker.State) { changed(to == gobreaker.StateOpen) },
	})}
}

// open is only a hint: allow decides.
func (c circuit) open() bool { return c.breaker.State() == gobreaker.StateOpen }

// allow is false when no call may be made now; else done has to be told its verdict.
func (c circuit) allow() (done func(Verdict), ok bool) {
	report, err := c.breaker.Allow()
	if err != nil {
		return nil, false
	}
	return func(v Verdict) {
		if v == Unknown {
			report(unclear{})
			return
		}
		report(nil)
	}, true
}
