package saga

import (
	"time"

	"github.com/sony/gobreaker/v2"
)

// circuit opens after tripAfter unknown outcomes in a row: while the other system
// is away, sagas wait instead of trying. After a pause one call at a time asks
// whether it is back, and its first answer of any kind closes the circuit: more
// could not be asked for, since some outcomes are always unknown.
type circuit struct {
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
}

const tripAfter = 20

type unclear struct{}

func (unclear) Error() string { return "the outcome is unknown" }

// circuitStates are as the metric and the log name them.
var circuitStates = map[gobreaker.State]string{gobreaker.StateClosed: "closed", gobreaker.StateHalfOpen: "half_open", gobreaker.StateOpen: "open"}

// newCircuit tells each change of the state, and from which state it was.
func newCircuit(pause time.Duration, changed func(from, to gobreaker.State)) circuit {
	return circuit{gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "provider", MaxRequests: 1, Timeout: pause,
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		OnStateChange: func(_ string, from, to gobreaker.State) { changed(from, to) },
	})}
}

// open is only a hint: allow decides. A circuit whose one asking call is under way
// is as good as open.
func (c circuit) open() bool {
	state := c.breaker.State()
	return state == gobreaker.StateOpen || state == gobreaker.StateHalfOpen && c.breaker.Counts().Requests > 0
}

// allow is false when no call may be made now; else done has to be told whether the
// call was answered.
func (c circuit) allow() (done func(answered bool), ok bool) {
	report, err := c.breaker.Allow()
	if err != nil {
		return nil, false
	}
	return func(answered bool) {
		if answered {
			report(nil)
			return
		}
		report(unclear{})
	}, true
}
