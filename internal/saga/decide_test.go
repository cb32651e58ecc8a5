package saga

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func local(name string) Action {
	return Action{Name: name, Local: &Local{Do: func(context.Context, Unit, *Instance) (Outcome, error) { return Outcome{Verdict: Succeeded}, nil }}}
}

func undo(name string) *Action { a := local(name); return &a }

func definition() Definition {
	hook := func(context.Context, Unit, *Instance) error { return nil }
	return Definition{
		Name: "test", Version: 1, Completed: hook, Compensated: hook,
		Parked: func(context.Context, Unit, *Instance, Rejection) error { return nil },
		Steps: []Step{
			{Kind: Compensatable, Do: local("reserve"), Undo: undo("release")},
			{Kind: Compensatable, Do: local("notify")}, // nothing to undo
			{Kind: Compensatable, Do: local("authorize"), Undo: undo("void")},
			{Kind: Pivot, Do: local("capture")},
			{Kind: Retriable, Do: local("confirm")},
		},
	}
}

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	policy := Policy{
		Horizon: 5 * time.Second, KeyLifetime: time.Hour, Backoff: seconds,
		UndoBackoff: func(n int) time.Duration { return time.Duration(n) * time.Minute }, Shut: func() time.Duration { return time.Hour },
	}
	why := func(step string) *Rejection { return &Rejection{Step: step, Code: "no"} }
	no := Outcome{Verdict: Rejected, Code: "no"}
	for name, c := range map[string]struct {
		from position
		o    Outcome
		want position
	}{
		"success goes on":                      {position{State: Running, Step: "reserve", Tries: 3}, Outcome{Verdict: Succeeded}, position{State: Running, Step: "notify", Since: now}},
		"the last success completes":           {position{State: Running, Step: "confirm"}, Outcome{Verdict: Succeeded}, position{State: Completed, Step: "confirm"}},
		"a rejected first step has no undo":    {position{State: Running, Step: "reserve"}, no, position{State: Compensated, Step: "reserve", Rejection: why("reserve")}},
		"a rejected step is not itself undone": {position{State: Running, Step: "authorize"}, no, position{State: Compensating, Step: "release", Since: now, Rejection: why("authorize")}},
		"a rejected pivot undoes in reverse":   {position{State: Running, Step: "capture"}, no, position{State: Compensating, Step: "void", Since: now, Rejection: why("capture")}},
		"the undo goes on backwards":           {position{State: Compensating, Step: "void", Rejection: why("capture")}, Outcome{Verdict: Succeeded}, position{State: Compensating, Step: "release", Since: now, Rejection: why("capture")}},
		"the last undo ends":                   {position{State: Compensating, Step: "release", Rejection: why("capture")}, Outcome{Verdict: Succeeded}, position{State: Compensated, Step: "release", Rejection: why("capture")}},
		"a rejected undo is a person's":        {position{State: Compensating, Step: "void", Rejection: why("capture")}, no, position{State: Parked, Step: "void", From: Compensating, Rejection: why("capture"), Parked: why("void")}},
		"past the pivot nothing turns back":    {position{State: Running, Step: "confirm"}, no, position{State: Parked, Step: "confirm", From: Running, Parked: why("confirm")}},
		"unknown in flight is resolved": {
			position{State: Running, Step: "capture", Intent: true}, Outcome{Verdict: Unknown, InFlight: true, sent: now.Add(-2 * time.Second)},
			position{State: Running, Step: "capture", Intent: true, Attempted: true, Resolving: true, Tries: 1, Wait: time.Second, InFlight: now.Add(3 * time.Second)},
		},
		"unknown never shortens the horizon": {
			position{State: Running, Step: "capture", Intent: true, InFlight: now.Add(time.Minute)}, Outcome{Verdict: Unknown, InFlight: true},
			position{State: Running, Step: "capture", Intent: true, Attempted: true, Resolving: true, Tries: 1, Wait: time.Second, InFlight: now.Add(time.Minute)},
		},
		"not found proves nothing in flight": {
			position{State: Running, Step: "capture", Since: now, Intent: true, Resolving: true, Tries: 4, InFlight: now.Add(2 * time.Second)}, Outcome{Verdict: NotFound},
			position{State: Running, Step: "capture", Since: now, Intent: true, Resolving: true, Tries: 5, InFlight: now.Add(2 * time.Second), Wait: 2 * time.Second},
		},
		"after the horizon it is sent again": {
			position{State: Running, Step: "capture", Since: now, Intent: true, Resolving: true, Tries: 5, InFlight: now}, Outcome{Verdict: NotFound},
			position{State: Running, Step: "capture", Since: now, Tries: 5, InFlight: now},
		},
		"after the key's lifetime it is a person's": {
			position{State: Running, Step: "capture", Since: now.Add(-2 * time.Hour), Intent: true, Resolving: true, InFlight: now}, Outcome{Verdict: NotFound},
			position{
				State: Parked, From: Running, Step: "capture", Since: now.Add(-2 * time.Hour), InFlight: now,
				Parked: &Rejection{Step: "capture", Code: "unresolved", Detail: "The outcome stayed unknown for as long as the provider honors the key."},
			},
		},
		"after the key's lifetime a deadline that has passed turns it back": {
			position{State: Running, Step: "authorize", Since: now.Add(-2 * time.Hour), Deadline: now.Add(-time.Hour), Intent: true, Attempted: true, Resolving: true},
			Outcome{Verdict: NotFound},
			position{State: Running, Step: "authorize", Since: now.Add(-2 * time.Hour), Deadline: now.Add(-time.Hour), Attempted: true},
		},
		"past its deadline and its key's lifetime a sent pivot is a person's": {
			position{State: Running, Step: "capture", Since: now.Add(-2 * time.Hour), Deadline: now.Add(-time.Hour), Intent: true, Attempted: true, Resolving: true},
			Outcome{Verdict: NotFound},
			position{
				State: Parked, From: Running, Step: "capture", Since: now.Add(-2 * time.Hour), Deadline: now.Add(-time.Hour), Attempted: true,
				Parked: &Rejection{Step: "capture", Code: "unresolved", Detail: "The outcome stayed unknown for as long as the provider honors the key."},
			},
		},
		"lookups that get no answer for as long as the key lives are a person's": {
			position{State: Compensating, Step: "void", Since: now.Add(-2 * time.Hour), Intent: true, Attempted: true, Resolving: true, Tries: 9}, Outcome{Verdict: Unknown},
			position{
				State: Parked, From: Compensating, Step: "void", Since: now.Add(-2 * time.Hour), Intent: true, Attempted: true, Resolving: true, Tries: 10,
				Parked: &Rejection{Step: "void", Code: "unresolved", Detail: "The outcome stayed unknown for as long as the provider honors the key."},
			},
		},
		"a request without an answer is looked up however late it was sent": {
			position{State: Running, Step: "capture", Since: now.Add(-2 * time.Hour), Intent: true}, Outcome{Verdict: Unknown},
			position{State: Running, Step: "capture", Since: now.Add(-2 * time.Hour), Intent: true, Attempted: true, Resolving: true, Tries: 1, Wait: time.Second, InFlight: now},
		},
		"what is pending is looked at ever more rarely, and is nobody's fault": {
			position{State: Running, Step: "capture", Since: now.Add(-2 * time.Minute), Intent: true, Attempted: true, Resolving: true, InFlight: now.Add(-time.Minute)}, Outcome{Verdict: Unknown, Pending: true},
			position{State: Running, Step: "capture", Since: now.Add(-2 * time.Minute), Intent: true, Attempted: true, Resolving: true, InFlight: now.Add(-time.Minute), Pending: true, Tries: 1, Wait: 30 * time.Second},
		},
		"what is pending for days is not given up": {
			position{State: Running, Step: "capture", Since: now.Add(-48 * time.Hour), Intent: true, Attempted: true, Resolving: true}, Outcome{Verdict: Unknown, Pending: true},
			position{State: Running, Step: "capture", Since: now.Add(-48 * time.Hour), Intent: true, Attempted: true, Resolving: true, Pending: true, Tries: 1, Wait: 10 * time.Minute},
		},
		"what was pending is not given up by a lookup without an answer": {
			position{State: Running, Step: "capture", Since: now.Add(-48 * time.Hour), Intent: true, Attempted: true, Resolving: true, Pending: true}, Outcome{Verdict: Unknown},
			position{State: Running, Step: "capture", Since: now.Add(-48 * time.Hour), Intent: true, Attempted: true, Resolving: true, Pending: true, Tries: 1, Wait: 10 * time.Minute},
		},
		"what was pending is not sent again when it is not found": {
			position{State: Running, Step: "capture", Since: now.Add(-2 * time.Minute), Intent: true, Attempted: true, Resolving: true, Pending: true, InFlight: now.Add(-time.Minute)}, Outcome{Verdict: NotFound},
			position{State: Running, Step: "capture", Since: now.Add(-2 * time.Minute), Intent: true, Attempted: true, Resolving: true, Pending: true, InFlight: now.Add(-time.Minute), Tries: 1, Wait: 30 * time.Second},
		},
		"a step that only looks goes on without an answer": {
			position{State: Running, Step: "authorize", Since: now.Add(-2 * time.Hour), Intent: true, Attempted: true, Resolving: true}, Outcome{Verdict: Unknown, Again: time.Minute},
			position{State: Running, Step: "authorize", Since: now.Add(-2 * time.Hour), Intent: true, Attempted: true, Resolving: true, Tries: 1, Wait: time.Minute},
		},
		"a compensation has its own pauses": {
			position{State: Compensating, Step: "void", Intent: true}, Outcome{Verdict: Unknown},
			position{State: Compensating, Step: "void", Intent: true, Attempted: true, Resolving: true, Tries: 1, Wait: time.Minute, InFlight: now},
		},
		"what was not sent is not resolved": {
			position{State: Running, Step: "authorize", Intent: true}, Outcome{Verdict: notSent},
			position{State: Running, Step: "authorize", Wait: time.Hour},
		},
		"what was sent before is resolved anew after a wait": {
			position{State: Running, Step: "capture", Intent: true, Attempted: true}, Outcome{Verdict: notSent},
			position{State: Running, Step: "capture", Intent: true, Attempted: true, Resolving: true, Wait: time.Hour},
		},
		"a wish to turn back goes with it": {
			position{State: Running, Step: "reserve", Abort: why("")}, Outcome{Verdict: Succeeded}, position{State: Running, Step: "notify", Since: now, Abort: why("")},
		},
		"the deadline ends with the pivot": {
			position{State: Running, Step: "capture", Deadline: now}, Outcome{Verdict: Succeeded}, position{State: Running, Step: "confirm", Since: now},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, definition().decide(c.from, c.o, now, policy)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestTurnHeedsAnAbortOnlyWhereItIsSafe(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	wish := &Rejection{Code: "canceled"}
	back := func(step, undo string, unproven bool) position {
		return position{State: Compensating, Step: undo, Since: now, Rejection: &Rejection{Step: step, Code: "canceled", Unproven: unproven}}
	}
	for name, c := range map[string]struct{ from, want position }{
		"nothing is asked":        {position{State: Running, Step: "authorize"}, position{State: Running, Step: "authorize"}},
		"before the call":         {position{State: Running, Step: "authorize", Abort: wish}, back("authorize", "release", false)},
		"sent and never found":    {position{State: Running, Step: "authorize", Abort: wish, Attempted: true}, back("authorize", "release", true)},
		"the call may be made":    {position{State: Running, Step: "authorize", Abort: wish, Intent: true}, position{State: Running, Step: "authorize", Abort: wish, Intent: true}},
		"it is being looked up":   {position{State: Running, Step: "authorize", Abort: wish, Resolving: true}, position{State: Running, Step: "authorize", Abort: wish, Resolving: true}},
		"at the pivot, not sent":  {position{State: Running, Step: "capture", Abort: wish}, back("capture", "void", false)},
		"the pivot was once sent": {position{State: Running, Step: "capture", Abort: wish, Attempted: true}, position{State: Running, Step: "capture", Abort: wish, Attempted: true}},
		"past the pivot":          {position{State: Running, Step: "confirm", Abort: wish}, position{State: Running, Step: "confirm", Abort: wish}},
		"on the way back":         {position{State: Compensating, Step: "release", Abort: wish}, position{State: Compensating, Step: "release", Abort: wish}},
		"the deadline is to come": {position{State: Running, Step: "authorize", Deadline: now}, position{State: Running, Step: "authorize", Deadline: now}},
		"nothing is done yet":     {position{State: Running, Step: "reserve", Abort: wish}, position{State: Compensated, Step: "reserve", Rejection: &Rejection{Step: "reserve", Code: "canceled"}}},
		"the deadline has passed": {
			position{State: Running, Step: "authorize", Deadline: now.Add(-1)},
			position{State: Compensating, Step: "release", Since: now, Rejection: &Rejection{Step: "authorize", Code: CodeDeadline, Detail: "The order could not be completed in time."}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, definition().turn(c.from, now)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestTheHashTellsShapesApart(t *testing.T) {
	d, seen := definition(), map[[32]byte]string{definition().Hash(): "the same"}
	if d.Deadline = time.Hour; d.Hash() != definition().Hash() {
		t.Error("a time is no shape")
	}
	for name, change := range map[string]func(*Definition){
		"version":     func(d *Definition) { d.Version = 2 },
		"name":        func(d *Definition) { d.Name = "other" },
		"step's name": func(d *Definition) { d.Steps[0].Do.Name = "other" },
		"undo's name": func(d *Definition) { d.Steps[0].Undo.Name = "other" },
		"no undo":     func(d *Definition) { d.Steps[0].Undo = nil },
		"kind":        func(d *Definition) { d.Steps[3].Kind = Retriable },
		"a call":      func(d *Definition) { d.Steps[3].Do.Local, d.Steps[3].Do.Call = nil, &Call{} },
		"order":       func(d *Definition) { d.Steps[0], d.Steps[1] = d.Steps[1], d.Steps[0] },
		"fewer steps": func(d *Definition) { d.Steps = d.Steps[:4] },
	} {
		d := definition()
		change(&d)
		if same, twice := seen[d.Hash()]; twice {
			t.Errorf("%s: the same hash as %s", name, same)
		}
		seen[d.Hash()] = name
	}
}

func TestCheckRefusesWhatCouldRollBackPastThePivot(t *testing.T) {
	if err := definition().Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Definition){
		"no steps":                  func(d *Definition) { d.Steps = nil },
		"no version":                func(d *Definition) { d.Version = 0 },
		"two pivots":                func(d *Definition) { d.Steps[4].Kind = Pivot },
		"compensatable after pivot": func(d *Definition) { d.Steps[4].Kind = Compensatable },
		"an undo of the pivot":      func(d *Definition) { d.Steps[3].Undo = undo("refund") },
		"an undo after the pivot":   func(d *Definition) { d.Steps[4].Undo = undo("unconfirm") },
		"a name twice":              func(d *Definition) { d.Steps[1].Do.Name = "reserve" },
		"neither local nor a call":  func(d *Definition) { d.Steps[1].Do.Local = nil },
		"both local and a call":     func(d *Definition) { d.Steps[1].Do.Call = &Call{} },
		"an incomplete call":        func(d *Definition) { d.Steps[3].Do.Local, d.Steps[3].Do.Call = nil, &Call{} },
		"a wait without a time":     func(d *Definition) { d.Steps[1].Do.Local, d.Steps[1].Do.Await = nil, &Await{} },
		"a wait as the pivot": func(d *Definition) {
			d.Steps[3].Do.Local = nil
			d.Steps[3].Do.Await = &Await{Within: func(json.RawMessage) time.Duration { return 0 }, Lapse: Outcome{Verdict: Succeeded}}
		},
		"no hook": func(d *Definition) { d.Parked = nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := definition()
			change(&d)
			if d.Check() == nil {
				t.Fatal("accepted")
			}
		})
	}
}
