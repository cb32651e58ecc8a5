package saga

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"
)

// Kind says what may happen to a step once it is reached.
type Kind int

// A compensatable step can be undone; the pivot decides; a retriable step comes
// after it and is tried until it is done.
const (
	Compensatable Kind = iota + 1
	Pivot
	Retriable
)

func (k Kind) String() string {
	return map[Kind]string{Compensatable: "compensatable", Pivot: "pivot", Retriable: "retriable"}[k]
}

// Request is what a call to another system gets. Key is derived from saga and
// step and never changes, however often the request is sent.
type Request struct {
	Key   string
	Data  json.RawMessage
	Trace string    // W3C traceparent of the request that began the saga, or ""
	Until time.Time // of a lookup: by the policy's horizon nothing that was sent is carried out after it
}

// digest is what an attempt keeps of its request: SHA-256 over the key and the
// data in canonical form (RFC 8785), since Postgres gives the members back in
// another order.
func (r Request) digest() []byte {
	data := jsontext.Value(bytes.Clone(r.Data))
	if err := data.Canonicalize(); err != nil {
		data = jsontext.Value(r.Data) // then it was not read from the database
	}
	sum := sha256.Sum256(append([]byte(r.Key+"\x00"), data...))
	return sum[:]
}

// Unit is the unit of work of one commit (M. Fowler, Patterns of Enterprise Application
// Architecture, 2002): the rows that the sagas of the commit may change, read after their
// locks. Steps, records and hooks change the rows in memory, so that a step sees what the
// steps before it did, of its own saga and of the others. Queue then adds the statements that
// write them, one a table however many sagas there are; each checks how many rows it wrote. They
// are the last of the commit. Error of a statement: ErrOvertaken.
type Unit interface {
	Queue(b *pgx.Batch) error
}

// Transaction is the Unit of a worker whose Config has no Open: steps run SQL on it.
type Transaction struct{ pgx.Tx }

// Queue adds nothing.
func (Transaction) Queue(*pgx.Batch) error { return nil }

// Recorder changes a commit's unit by what the outcome of a step means. The instance has
// the attempts of the step, this one included.
type Recorder func(context.Context, Unit, *Instance, Outcome) error

// Hook changes a commit's unit at the end of a saga.
type Hook func(context.Context, Unit, *Instance) error

// Call is a step's work in another system. Execute and Lookup run outside any
// transaction and must end with their context. Record is for a succeeded or a rejected outcome.
type Call struct {
	Execute func(context.Context, Request) Outcome
	Lookup  func(context.Context, Request) Outcome
	Record  Recorder
	// Ready says what the call lacks, such as credentials, or "". It is asked in the
	// transaction that writes the call's intent and before each lookup, so it must not
	// wait. It may add to the saga's data, which is kept with the intent. A saga that
	// lacks something waits: nothing is sent, no try is counted, and it is not given up.
	// nil: the call lacks nothing.
	Ready func(*Instance) (lacks string, err error)
}

// ready asks Ready.
func (c *Call) ready(i *Instance) (lacks string, err error) {
	if c.Ready == nil {
		return "", nil
	}
	return c.Ready(i)
}

// Await holds a saga until it is signaled, or Within has passed since the step
// was entered: then Lapse is the step's outcome, succeeded or rejected. Record
// may be nil.
type Await struct {
	Within func(json.RawMessage) time.Duration
	Lapse  Outcome
	Record Recorder
}

// Local is a step's work on a commit's unit. It must succeed or be rejected; an error rolls
// the commit back, and the step is tried again. Record may be nil.
type Local struct {
	Do     func(context.Context, Unit, *Instance) (Outcome, error)
	Record Recorder
}

// Action is one of three: a Local, a Call or an Await.
type Action struct {
	Name  string
	Local *Local
	Call  *Call
	Await *Await
}

// recorder of the action's outcomes.
func (a Action) recorder() Recorder {
	var r Recorder
	switch {
	case a.Local != nil:
		r = a.Local.Record
	case a.Call != nil:
		r = a.Call.Record
	case a.Await != nil:
		r = a.Await.Record
	}
	if r == nil {
		return func(context.Context, Unit, *Instance, Outcome) error { return nil }
	}
	return r
}

func (a Action) kind() string {
	kinds := []string{}
	for name, has := range map[string]bool{"local": a.Local != nil, "call": a.Call != nil, "await": a.Await != nil} {
		if has {
			kinds = append(kinds, name)
		}
	}
	if len(kinds) != 1 {
		return ""
	}
	return kinds[0]
}

// Step is an action and the compensation that undoes its effect.
type Step struct {
	Kind Kind
	Do   Action
	Undo *Action
}

// Definition of a saga: data, of which Hash is the identity. A running saga stays
// with the version it began with. The hooks run in the transaction of the last
// step; Parked in the one that gives the saga to a person.
type Definition struct {
	Name    string
	Version int
	// Deadline is how long after its beginning a saga turns back by itself, if it
	// has come neither to its pivot nor to an awaiting step. 0 is never.
	Deadline time.Duration
	// Steadfast sagas cannot be asked to turn back.
	Steadfast   bool
	Steps       []Step
	Completed   Hook
	Compensated Hook
	Parked      func(context.Context, Unit, *Instance, Rejection) error
}

// Check refuses a definition whose shape could roll back past its pivot.
func (d Definition) Check() error {
	if d.Name == "" || d.Version < 1 || len(d.Steps) == 0 {
		return errors.New("a saga needs a name, a version of at least 1 and steps")
	}
	seen, reached := map[string]bool{}, Compensatable
	for _, s := range d.Steps {
		actions := []Action{s.Do}
		if s.Undo != nil {
			actions = append(actions, *s.Undo)
		}
		for i, a := range actions {
			if a.Name == "" || seen[a.Name] || a.kind() == "" {
				return fmt.Errorf("saga %s: action %q needs a name of its own and one of Local, Call and Await", d.Name, a.Name)
			}
			if a.Local != nil && a.Local.Do == nil {
				return fmt.Errorf("saga %s: %q needs something to do", d.Name, a.Name)
			}
			if a.Call != nil && (a.Call.Execute == nil || a.Call.Lookup == nil || a.Call.Record == nil) {
				return fmt.Errorf("saga %s: call %q needs Execute, Lookup and Record", d.Name, a.Name)
			}
			if a.Await != nil && (i > 0 || s.Kind != Compensatable || a.Await.Within == nil ||
				a.Await.Lapse.Verdict != Succeeded && a.Await.Lapse.Verdict != Rejected) {
				return fmt.Errorf("saga %s: %q can only await before the pivot, and needs a time and a lapse", d.Name, a.Name)
			}
			seen[a.Name] = true
		}
		if s.Kind < reached || s.Kind > Retriable || s.Kind == Pivot && reached == Pivot {
			return fmt.Errorf("saga %s: %s: the order is compensatable steps, one pivot, retriable steps", d.Name, s.Do.Name)
		}
		if s.Kind != Compensatable && s.Undo != nil {
			return fmt.Errorf("saga %s: %s: only a step before the pivot has a compensation", d.Name, s.Do.Name)
		}
		reached = s.Kind
	}
	if d.Completed == nil || d.Compensated == nil || d.Parked == nil {
		return fmt.Errorf("saga %s: every hook is needed", d.Name)
	}
	return nil
}

// Hash is SHA-256 over the shape: what a version of a name must never change.
func (d Definition) Hash() [sha256.Size]byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %d\n", d.Name, d.Version)
	for _, s := range d.Steps {
		fmt.Fprintf(&b, "%s %q %s", s.Kind, s.Do.Name, s.Do.kind())
		if s.Undo != nil {
			fmt.Fprintf(&b, " undo %q %s", s.Undo.Name, s.Undo.kind())
		}
		b.WriteByte('\n')
	}
	return sha256.Sum256([]byte(b.String()))
}

// key names the definition and its version, as statements compare them.
func (d Definition) key() string { return fmt.Sprint(d.Name, " ", d.Version) }

// find gives the place of the action with this name.
func (d Definition) find(name string) (index int, action Action, ok bool) {
	for i, s := range d.Steps {
		if s.Do.Name == name {
			return i, s.Do, true
		}
		if s.Undo != nil && s.Undo.Name == name {
			return i, *s.Undo, true
		}
	}
	return 0, Action{}, false
}

// Policy holds the times that the decisions need.
type Policy struct {
	// Horizon is the longest time after the beginning of its call that a request
	// without an answer may still be carried out: a call may send at the end of its
	// time, so that this holds the CallTimeout as well. A call that ran longer, since
	// its process was stopped, counts as one that ended in time.
	Horizon time.Duration
	// KeyLifetime is how long the other system honors a key, less a margin.
	KeyLifetime time.Duration
	// Backoff gives the pause after the n-th try, from 1; UndoBackoff the pause
	// between tries of a compensation.
	Backoff, UndoBackoff func(try int) time.Duration
	// Shut is the pause of a saga that finds the circuit to the other system open.
	Shut func() time.Duration
}

func (p Policy) pause(s State, try int) time.Duration {
	if s == Compensating {
		return p.UndoBackoff(try)
	}
	return p.Backoff(try)
}
