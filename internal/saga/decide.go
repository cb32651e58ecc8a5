package saga

import "time"

// State of a saga. Parked waits for a person.
type State string

// The states of a saga.
const (
	Running      State = "running"
	Compensating State = "compensating"
	Completed    State = "completed"
	Compensated  State = "compensated"
	Parked       State = "parked"
)

// Rejection is why a saga turned back, or why it was parked.
type Rejection struct {
	Step   string `json:"step"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// position is where a saga stands: all that a decision depends on.
type position struct {
	State     State
	Step      string
	Since     time.Time // when Step was entered
	Tries     int
	Intent    bool // the call of Step may have been made
	Resolving bool // its outcome has to be looked up
	InFlight  time.Time
	Rejection *Rejection
	Wait      time.Duration // until the next turn
}

func (p position) live() bool { return p.State == Running || p.State == Compensating }

// lost is the position of a saga whose worker died with a call in its hands.
func (p position) lost(now time.Time, policy Policy) position {
	p.Resolving, p.InFlight = true, now.Add(policy.Horizon)
	return p
}

// decide is the whole state machine: pure, so that it can be run without a store.
func (d Definition) decide(p position, o Outcome, now time.Time, policy Policy) position {
	index, _, _ := d.find(p.Step)
	switch o.Verdict {
	case Succeeded:
		if p.State == Compensating {
			return d.back(p, index, now)
		}
		if index+1 == len(d.Steps) {
			return position{State: Completed, Step: p.Step, Since: p.Since}
		}
		return position{State: Running, Step: d.Steps[index+1].Do.Name, Since: now}
	case Rejected:
		rejection := &Rejection{p.Step, o.Code, o.Detail}
		if p.State == Compensating || d.Steps[index].Kind == Retriable {
			return p.park(rejection)
		}
		p.Rejection = rejection
		return d.back(p, index, now)
	case NotFound:
		if left := p.InFlight.Sub(now); left > 0 {
			p.Tries++
			p.Wait = min(policy.Backoff(p.Tries), left)
			return p
		}
		if now.Sub(p.Since) > policy.KeyLifetime {
			return p.park(&Rejection{p.Step, "unresolved", "the outcome stayed unknown for as long as the provider honors the key"})
		}
		p.Resolving, p.Intent = false, false
		return p
	default:
		p.Tries++
		p.Resolving = true
		if o.sent.IsZero() {
			o.sent = now
		}
		if until := o.sent.Add(policy.Horizon); o.InFlight && until.After(p.InFlight) {
			p.InFlight = until
		}
		p.Wait = policy.Backoff(p.Tries)
		return p
	}
}

// back goes to the nearest compensation before step index, in reverse order.
func (d Definition) back(p position, index int, now time.Time) position {
	for i := index - 1; i >= 0; i-- {
		if undo := d.Steps[i].Undo; undo != nil {
			return position{State: Compensating, Step: undo.Name, Since: now, Rejection: p.Rejection}
		}
	}
	return position{State: Compensated, Step: p.Step, Since: p.Since, Rejection: p.Rejection}
}

func (p position) park(why *Rejection) position {
	return position{State: Parked, Step: p.Step, Since: p.Since, Tries: p.Tries, Rejection: why}
}
