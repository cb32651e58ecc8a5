package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

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

// Verdict of an attempt.
type Verdict string

// NotFound is a lookup's verdict only: the other system has no such operation
// (yet, as long as a request may be in flight).
const (
	Succeeded Verdict = "succeeded"
	Rejected  Verdict = "rejected"
	NotFound  Verdict = "not_found"
	Unknown   Verdict = "unknown"
)

// Outcome of an attempt. Code and Detail say why it was rejected or is unknown;
// Reference is the other system's name of the operation.
type Outcome struct {
	Verdict   Verdict
	Code      string
	Detail    string
	Reference string
	// InFlight: the outcome is unknown and the request may yet be carried out.
	InFlight bool

	sent time.Time // when the request left at the latest; the zero time means now
}

// Request is what a call to another system gets. Key is derived from saga and
// step and never changes, however often the request is sent.
type Request struct {
	Key  string
	Data json.RawMessage
}

// Call is a step's work in another system. Execute and Lookup run outside any
// transaction and must end with their context. Record writes what a succeeded or
// rejected outcome means, in the transaction that advances the saga.
type Call struct {
	Execute func(context.Context, Request) Outcome
	Lookup  func(context.Context, Request) Outcome
	Record  func(context.Context, pgx.Tx, *Instance, Outcome) error
}

// Action is either Local, which runs inside the engine's transaction and must be
// succeeded or rejected, or a Call. An error of Local rolls back and is retried.
type Action struct {
	Name  string
	Local func(context.Context, pgx.Tx, *Instance) (Outcome, error)
	Call  *Call
}

// Step is an action and the compensation that undoes its effect.
type Step struct {
	Kind Kind
	Do   Action
	Undo *Action
}

// Definition of a saga. The hooks run in the transaction of the last step; Parked
// in the one that gives the saga to a person.
type Definition struct {
	Name        string
	Version     int
	Steps       []Step
	Completed   func(context.Context, pgx.Tx, *Instance) error
	Compensated func(context.Context, pgx.Tx, *Instance) error
	Parked      func(context.Context, pgx.Tx, *Instance, string) error
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
		for _, a := range actions {
			if a.Name == "" || seen[a.Name] || (a.Local == nil) == (a.Call == nil) {
				return fmt.Errorf("saga %s: action %q needs a name of its own and either Local or Call", d.Name, a.Name)
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
	// Horizon is the longest time after its sending that a request without an
	// answer may still be carried out.
	Horizon time.Duration
	// KeyLifetime is how long the other system honors a key, less a margin.
	KeyLifetime time.Duration
	// Backoff gives the pause after the n-th try, from 1.
	Backoff func(try int) time.Duration
}
