package saga

import (
	"context"
	"fmt"
	"log/slog"
)

// Plan is what a commit is going to do with a saga: the local steps that will run
// if none is rejected.
type Plan struct {
	Saga   *Instance
	Locals []string
}

// plan foresees the local steps of each entry, so that what they change can be
// locked in one order for the whole commit.
func (w *Worker) plan(held []*entry) []Plan {
	var plans []Plan
	for _, e := range held {
		i := e.next // a copy
		d, now := w.definition(&i), i.now(w.Now())
		if e.made != nil {
			i.position = d.decide(i.position, e.made.outcome, now, w.Policy)
		}
		t := Plan{Saga: &e.next}
		for i.live() && i.Wait == 0 {
			if i.position = d.turn(i.position, now); !i.live() {
				break
			}
			_, action, _ := d.find(i.Step)
			if action.Call != nil {
				break
			}
			o := Outcome{Verdict: Succeeded}
			if action.Await != nil {
				p, lapsed := i.await(action.Await.Within(i.Data), action.Await.Lapse, now)
				if lapsed == nil {
					i.position = p
					break
				}
				o = *lapsed
			} else {
				t.Locals = append(t.Locals, i.Step)
			}
			i.position = d.decide(i.position, o, now, w.Policy)
		}
		plans = append(plans, t)
	}
	return plans
}

// advance applies what was made and then all that needs no call, and ends with the
// intent of the next call, at a wait, or at the saga's end.
func (w *Worker) advance(ctx context.Context, u Unit, j *journal, i *Instance, m *made) error {
	d := w.definition(i)
	if m != nil {
		if err := w.conclude(ctx, u, j, i, *m); err != nil {
			return err
		}
	}
	for i.live() && i.Wait == 0 {
		if i.paused {
			i.position = i.hold(w.Policy.Shut())
			return nil
		}
		now := i.now(w.Now())
		if p := d.turn(i.position, now); p.Step != i.Step || p.State != i.State {
			if i.position = p; p.State == Compensated {
				return w.reached(ctx, u, d, i)
			}
			continue
		}
		_, action, ok := d.find(i.Step)
		switch {
		case !ok:
			return fmt.Errorf("saga %s version %d has no step %q", d.Name, d.Version, i.Step)
		case action.Call != nil:
			return w.intend(j, i, action.Call)
		case action.Await != nil:
			p, o := i.await(action.Await.Within(i.Data), action.Await.Lapse, now)
			if i.position = p; o == nil {
				return nil
			}
			if err := w.conclude(ctx, u, j, i, made{call: callAwait, outcome: *o, began: i.Since, ended: now}); err != nil {
				return err
			}
		default:
			if err := w.conclude(ctx, u, j, i, made{call: callLocal, began: now, ended: now}); err != nil {
				return err
			}
		}
	}
	return nil
}

// intend writes down that a call is about to be made. A saga that finds the
// circuit open, or whose call lacks something, waits without having tried.
func (w *Worker) intend(j *journal, i *Instance, c *Call) error {
	if i.Intent || i.Resolving {
		return nil
	}
	now := i.now(w.Now())
	lacks, err := c.ready(i)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", i.Step, err)
	case lacks != "":
		i.position = i.lack(lacks, now, w.Policy)
		return nil
	case w.circuit.open():
		i.position = i.hold(w.Policy.Shut())
		return nil
	}
	if !i.Attempted {
		i.Since = now // the key's lifetime begins
	}
	i.number++
	i.Intent = true
	j.add(i, w.Owner, made{call: callExecute, digest: i.request().digest(), began: now})
	return nil
}

// conclude writes one attempt's outcome, its meaning, and the position after it.
func (w *Worker) conclude(ctx context.Context, u Unit, j *journal, i *Instance, m made) (err error) {
	d := w.definition(i)
	_, action, _ := d.find(i.Step)
	if i.lost {
		j.add(i, w.Owner, made{call: callExecute, outcome: Outcome{Verdict: Unknown, Code: "worker_lost"}, began: m.began, ended: m.began})
		i.lost = false
	}
	if m.call != callExecute {
		i.number++
	}
	if action.Local != nil {
		if m.outcome, err = action.Local.Do(ctx, u, i); err != nil {
			return fmt.Errorf("%s: %w", i.Step, err)
		}
		if m.outcome.Verdict != Succeeded && m.outcome.Verdict != Rejected {
			return fmt.Errorf("%s: a local step must succeed or be rejected, not %s", i.Step, m.outcome.Verdict)
		}
		i.Attempts = nil // those before it were of another step
	}
	if m.outcome.Verdict == Succeeded || m.outcome.Verdict == Rejected {
		i.Attempts = append(i.Attempts, Attempt{
			Number: i.number, Step: i.Step, Call: m.call, Outcome: m.outcome.Verdict, Code: m.outcome.Code, StartedAt: m.began, Finished: m.ended,
		})
		if err := action.recorder()(ctx, u, i, m.outcome); err != nil {
			return fmt.Errorf("record %s: %w", i.Step, err)
		}
	}
	j.add(i, w.Owner, m)
	i.Attempts = nil
	step := i.Step
	i.position = d.decide(i.position, m.outcome, i.now(w.Now()), w.Policy)
	if w.Log.Enabled(ctx, slog.LevelDebug) {
		w.Log.DebugContext(ctx, "saga decided", "saga", i.ID, "definition", i.definition, "step", step, "call", m.call, "outcome", string(m.outcome.Verdict),
			"code", m.outcome.Code, "state", string(i.State), "next", i.Step, "wait", i.Wait)
	}
	return w.reached(ctx, u, d, i)
}

// reached runs the hook of a saga that has come to an end.
func (w *Worker) reached(ctx context.Context, u Unit, d Definition, i *Instance) error {
	switch i.State {
	case Running, Compensating:
	case Completed:
		return d.Completed(ctx, u, i)
	case Compensated:
		return d.Compensated(ctx, u, i)
	case Parked:
		w.Log.ErrorContext(ctx, "saga parked for a person", "saga", i.ID, "step", i.Parked.Step, "code", i.Parked.Code)
		return d.Parked(ctx, u, i, *i.Parked)
	}
	return nil
}
