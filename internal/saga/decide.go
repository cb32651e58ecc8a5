package saga

import (
	"cmp"
	"time"
)

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

// position is where a saga stands: all that a decision depends on.
type position struct {
	State     State
	Step      string
	Since     time.Time // when Step was entered, or its request, and so its key, was first sent
	Tries     int
	Intent    bool      // the call of Step may have been made
	Attempted bool      // a request of Step was sent, even if a lookup has since found nothing
	Resolving bool      // its outcome has to be looked up
	InFlight  time.Time // what was sent is carried out until then or never
	Pending   bool      // the other system has the operation and has not decided it
	WaitsFor  string    // what the call of Step lacks
	Rejection *Rejection
	Parked    *Rejection
	From      State      // Parked from
	Abort     *Rejection // asked for, and heeded only where it is not too late
	Signaled  bool
	Deadline  time.Time // zero: none
	Wait      time.Duration
}

func (p position) live() bool { return p.State == Running || p.State == Compensating }

// abandoned is the position of a saga whose worker died with a call in its hands.
func (p position) abandoned(now time.Time, policy Policy) position {
	p.Resolving, p.Attempted, p.InFlight = true, true, now.Add(policy.Horizon)
	return p
}

// decide is what an outcome means: pure, so that it can be run without a store.
func (d Definition) decide(p position, o Outcome, now time.Time, policy Policy) position {
	index, _, _ := d.find(p.Step)
	switch o.Verdict {
	case Succeeded:
		if p.State == Compensating {
			return d.back(p, index, now)
		}
		return d.enter(p, index+1, now)
	case Rejected:
		rejection := &Rejection{Step: p.Step, Code: o.Code, Detail: o.Detail}
		if p.State == Compensating || d.Steps[index].Kind == Retriable {
			return p.park(rejection)
		}
		rejection.Unproven = o.testified && p.Attempted
		p.Rejection = rejection
		return d.back(p, index, now)
	case NotFound:
		if p.Pending { // it was there: the answer is another system's, or wrong
			return p.unknown(o, now, policy)
		}
		if o.Again > 0 {
			p.Tries++
			p.Resolving, p.Wait = true, o.Again
			return p
		}
		return d.notFound(p, now, policy)
	case notSent:
		return p.hold(cmp.Or(o.Again, policy.Shut()))
	default:
		return p.unknown(o, now, policy)
	}
}

func (p position) unknown(o Outcome, now time.Time, policy Policy) position {
	p.Tries++
	p.Pending = p.Pending || o.Pending
	if o.Again > 0 {
		p.Resolving, p.Attempted, p.Wait = true, true, o.Again
		return p
	}
	// What is pending ends by itself: neither our clock nor lookups without an answer end it.
	if p.Resolving && !p.Pending && now.Sub(p.Since) > policy.KeyLifetime {
		return p.park(unresolved(p.Step)) // lookups may stay without an answer for ever
	}
	if o.sent.IsZero() {
		o.sent = now
	}
	switch until := o.sent.Add(policy.Horizon); {
	case o.InFlight && until.After(p.InFlight):
		p.InFlight = until
	case !p.Resolving && now.After(p.InFlight): // it was carried out by now, or never is
		p.InFlight = now
	}
	p.Resolving, p.Attempted = true, true
	p.Wait = policy.pause(p.State, p.Tries)
	if p.Pending {
		p.Wait = max(p.Wait, p.share(now))
	}
	return p
}

// What ends by itself may take days: the pause between two looks at it is a share of the
// time that has passed.
const (
	waitShare = 4
	mostWait  = 10 * time.Minute
)

func (p position) share(now time.Time) time.Duration {
	return min(now.Sub(p.Since)/waitShare, mostWait)
}

// lack waits for what the call of Step lacks.
func (p position) lack(what string, now time.Time, policy Policy) position {
	p = p.hold(max(policy.Shut(), p.share(now)))
	p.WaitsFor = what
	return p
}

// hold waits before the call of Step. What was sent and not found is looked up anew
// afterwards: it may have been carried out, and its key may have expired.
func (p position) hold(wait time.Duration) position {
	p.Resolving = p.Resolving || p.Attempted
	p.Intent, p.Wait = p.Resolving, wait
	return p
}

// notFound proves nothing while a request may be in flight. After that the same
// request may be sent again, as long as its key is honored; not later. A saga that
// wants to turn back sends nothing again.
func (d Definition) notFound(p position, now time.Time, policy Policy) position {
	if left := p.InFlight.Sub(now); left > 0 {
		p.Tries++
		p.Wait = min(policy.pause(p.State, p.Tries), left)
		return p
	}
	p.Resolving, p.Intent = false, false
	if now.Sub(p.Since) > policy.KeyLifetime && d.turn(p, now).State == p.State {
		return p.park(unresolved(p.Step))
	}
	return p
}

func unresolved(step string) *Rejection {
	return &Rejection{Step: step, Code: CodeUnresolved, Detail: "The outcome stayed unknown for as long as the provider honors the key."}
}

// enter goes on to the step at index, or to the end.
func (d Definition) enter(p position, index int, now time.Time) position {
	if index == len(d.Steps) {
		return position{State: Completed, Step: p.Step, Since: p.Since}
	}
	next := position{State: Running, Step: d.Steps[index].Do.Name, Since: now, Abort: p.Abort, Deadline: p.Deadline}
	if d.Steps[index].Do.Await != nil || d.Steps[index].Kind == Retriable {
		next.Deadline = time.Time{}
	}
	return next
}

// abortable is whether the saga can still turn back at its own wish: before the
// pivot, and at it as long as no request of it was ever sent.
func (d Definition) abortable(p position) bool {
	index, _, _ := d.find(p.Step)
	kind := d.Steps[index].Kind
	return p.State == Running && !d.Steadfast && (kind == Compensatable || kind == Pivot && !p.Attempted && !p.Intent)
}

// turn heeds an abort or the deadline once the outcome of what was sent is known.
// What was sent and never found leaves the rejection unproven.
func (d Definition) turn(p position, now time.Time) position {
	if p.Abort == nil && !p.Deadline.IsZero() && now.After(p.Deadline) {
		p.Abort = &Rejection{Code: CodeDeadline, Detail: "The order could not be completed in time."}
	}
	if p.Abort == nil || p.Intent || p.Resolving || !d.abortable(p) {
		return p
	}
	index, _, _ := d.find(p.Step)
	rejection := *p.Abort
	rejection.Step, rejection.Unproven = p.Step, p.Attempted
	p.Rejection = &rejection
	return d.back(p, index, now)
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

// park keeps all that a person may have to go on with.
func (p position) park(why *Rejection) position {
	p.From, p.State, p.Parked, p.Wait = p.State, Parked, why, 0
	return p
}

// await is the outcome of an awaiting step; without one yet the position waits.
func (p position) await(within time.Duration, lapse Outcome, now time.Time) (position, *Outcome) {
	left := p.Since.Add(within).Sub(now)
	switch {
	case p.Signaled:
		return p, &Outcome{Verdict: Succeeded}
	case left <= 0:
		return p, &lapse
	}
	p.Wait = left
	return p, nil
}
