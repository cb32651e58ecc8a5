package saga

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

func local(name string) Action {
	return Action{Name: name, Local: func(context.Context, pgx.Tx, *Instance) (Outcome, error) { return Outcome{Verdict: Succeeded}, nil }}
}

func undo(name string) *Action { a := local(name); return &a }

func definition() Definition {
	hook := func(context.Context, pgx.Tx, *Instance) error { return nil }
	return Definition{
		Name: "test", Version: 1, Completed: hook, Compensated: hook,
		Parked: func(context.Context, pgx.Tx, *Instance, string) error { return nil },
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
	policy := Policy{Horizon: 5 * time.Second, KeyLifetime: time.Hour, Backoff: func(n int) time.Duration { return time.Duration(n) * time.Second }}
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
		"a rejected undo is a person's":        {position{State: Compensating, Step: "void"}, no, position{State: Parked, Step: "void", Rejection: why("void")}},
		"past the pivot nothing turns back":    {position{State: Running, Step: "confirm"}, no, position{State: Parked, Step: "confirm", Rejection: why("confirm")}},
		"unknown in flight is resolved": {
			position{State: Running, Step: "capture", Intent: true}, Outcome{Verdict: Unknown, InFlight: true, sent: now.Add(-2 * time.Second)},
			position{State: Running, Step: "capture", Intent: true, Resolving: true, Tries: 1, Wait: time.Second, InFlight: now.Add(3 * time.Second)},
		},
		"unknown never shortens the horizon": {
			position{State: Running, Step: "capture", Intent: true, InFlight: now.Add(time.Minute)}, Outcome{Verdict: Unknown, InFlight: true},
			position{State: Running, Step: "capture", Intent: true, Resolving: true, Tries: 1, Wait: time.Second, InFlight: now.Add(time.Minute)},
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
			position{State: Parked, Step: "capture", Since: now.Add(-2 * time.Hour), Rejection: &Rejection{"capture", "unresolved", "the outcome stayed unknown for as long as the provider honors the key"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, definition().decide(c.from, c.o, now, policy)); diff != "" {
				t.Fatal(diff)
			}
		})
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
		"no hook":                   func(d *Definition) { d.Parked = nil },
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
