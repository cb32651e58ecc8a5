package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Config of a Worker. Every member but Lock and Crash is needed.
type Config struct {
	Definitions []Definition
	Policy      Policy
	// Owner tells this worker from all others, living or dead.
	Owner string
	// CallTimeout bounds one call; Lease must leave room for it and a commit.
	CallTimeout, Lease time.Duration
	// Concurrency is how many sagas, and so how many calls, are in hand at once at
	// most; how many calls are, the answers to them decide.
	Concurrency int
	// Lock takes, before the steps of a commit run, the locks that their writes will
	// take, in one order for all, so that two commits cannot deadlock.
	Lock func(ctx context.Context, tx pgx.Tx, merchantID string, turns []Turn) error
	// Crash is for tests: where it answers true, the worker does no more, as if its
	// process had died there. The points are CrashPoints.
	Crash      func(point, step string) bool
	Now        func() time.Time
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// CrashPoints are the boundaries between which a worker can die, in the order of a
// saga's turn: after the claim, before and after a commit, before and after a call.
func CrashPoints() []string { return []string{"claimed", "commit", "committed", "call", "called"} }

const (
	// maxBatch bounds the sagas of one commit, and so how long it holds the locks of
	// articles that others wait for.
	maxBatch = 32
	// commits side by side; each is of another merchant.
	parallelCommits = 4
	// One in freshShare of the sagas in hand is one that had not begun, however many that
	// have begun are due.
	freshShare = 4
)

// Worker claims due sagas and drives each until it waits or ends.
type Worker struct {
	Config
	pool     *pgxpool.Pool
	byName   map[string]map[int]Definition
	names    []string
	versions []int
	slots    chan struct{}
	fresh    atomic.Int64 // of those in hand, how many had not begun when they were claimed
	turns    int          // Turn's own
	wake     chan struct{}
	commits  *group
	circuit  circuit
	limit    *limit
	inHand   sync.WaitGroup
	dead     atomic.Bool // Crash said so
	// registered: the database knows the definitions with the steps that this worker has.
	registered atomic.Bool
	metrics    metrics
}

// NewWorker checks the definitions and the times.
func NewWorker(pool *pgxpool.Pool, c Config) (*Worker, error) {
	if c.Lease < c.CallTimeout+2*time.Second {
		return nil, fmt.Errorf("a lease of %v ends before a call of %v and its commit", c.Lease, c.CallTimeout)
	}
	if c.Concurrency < 1 {
		return nil, errors.New("a saga worker needs a concurrency of at least 1")
	}
	if c.Lock == nil {
		c.Lock = func(context.Context, pgx.Tx, string, []Turn) error { return nil }
	}
	w := &Worker{
		Config: c, pool: pool, byName: map[string]map[int]Definition{},
		slots: make(chan struct{}, c.Concurrency), wake: make(chan struct{}, 1), metrics: newMetrics(c.Registerer),
	}
	w.commits = newGroup(maxBatch, parallelCommits, w.commitAll)
	w.limit = newLimit(c.Concurrency, func(allowed int) { w.metrics.allowed.Set(float64(allowed)) })
	w.circuit = newCircuit(c.Policy.Shut(), func(open bool) {
		w.metrics.circuitChanged(open)
		if open {
			w.limit.restart()
		}
	})
	for _, d := range c.Definitions {
		if err := d.Check(); err != nil {
			return nil, err
		}
		if w.byName[d.Name] == nil {
			w.byName[d.Name] = map[int]Definition{}
		}
		if _, twice := w.byName[d.Name][d.Version]; twice {
			return nil, fmt.Errorf("saga %s version %d is defined twice", d.Name, d.Version)
		}
		w.byName[d.Name][d.Version] = d
		w.names, w.versions = append(w.names, d.Name), append(w.versions, d.Version)
	}
	return w, nil
}

func (w *Worker) definition(i *Instance) Definition { return w.byName[i.definition][i.version] }

// Wake hints that a saga is due; a lost hint costs one polling interval.
func (w *Worker) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Woken fires after Wake, or when a worker's slot became free.
func (w *Worker) Woken() <-chan struct{} { return w.wake }

// Turn claims as many due sagas as there are free slots and drives them in the
// background; again is true when there may be more and a slot for them. It claims
// nothing before its definitions are registered. Error: ErrChanged.
func (w *Worker) Turn(ctx context.Context) (again bool, err error) {
	if !w.registered.Load() {
		if err := w.Register(ctx); err != nil {
			return false, err
		}
	}
	free := min(cap(w.slots)-len(w.slots), w.limit.room())
	if free <= 0 || w.dead.Load() {
		return false, nil
	}
	claimed, err := claim(ctx, w.pool, w.Owner, w.names, w.versions, w.Lease, free, w.share(free), w.Now)
	if err != nil {
		return false, err
	}
	for _, i := range claimed {
		w.slots <- struct{}{}
		fresh := i.number == 0
		if fresh {
			w.fresh.Add(1)
		}
		w.inHand.Go(func() {
			defer func() {
				if fresh {
					w.fresh.Add(-1)
				}
				<-w.slots
				w.Wake()
			}()
			w.drive(ctx, i)
		})
	}
	return len(claimed) == free, nil
}

// share is how many of the free slots are for sagas that have not begun: they have one
// in freshShare of all in hand. Few slots are shared turn by turn: if one kind always
// had the only one, the other would wait for as long as there is enough of the first.
func (w *Worker) share(free int) int {
	w.turns++
	inHand := len(w.slots) + free
	return max((inHand+w.turns%freshShare)/freshShare-int(w.fresh.Load()), 0)
}

// Drain waits for the sagas in hand. After the context of Turn has ended each
// finishes its step and gives its lease back.
func (w *Worker) Drain() { w.inHand.Wait() }

// errDead is the end of a worker that Crash has ended.
var errDead = errors.New("the worker is dead")

func (w *Worker) dies(point, step string) error {
	if w.dead.Load() || w.Crash != nil && w.Crash(point, step) {
		w.dead.Store(true)
		return errDead
	}
	return nil
}

// die asks for each saga of a commit, by the step that it came with.
func (w *Worker) die(point string, entries []*entry) error {
	for _, e := range entries {
		if err := w.dies(point, e.saga.Step); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) drive(stop context.Context, i *Instance) {
	ctx := context.WithoutCancel(stop)
	if w.dies("claimed", i.Step) != nil {
		return
	}
	if i.Intent && !i.Resolving {
		i.position, i.lost = i.abandoned(i.now(w.Now()), w.Policy), true
	}
	for i.live() && i.Wait == 0 {
		if stop.Err() != nil {
			w.giveBack(ctx, i, 0, false)
			return
		}
		step, epoch := i.Step, i.epoch
		err := w.turn(ctx, stop, i)
		switch {
		case err == nil:
		case errors.Is(err, errDead):
			return
		case errors.Is(err, ErrFenced):
			w.metrics.fenced.Inc()
			w.Log.WarnContext(ctx, "saga fenced", "saga", i.ID, "step", step, "epoch", epoch)
			return
		default:
			w.metrics.errors.Inc()
			w.Log.ErrorContext(ctx, "saga turn failed", "saga", i.ID, "step", step, "error", err)
			w.giveBack(ctx, i, w.Policy.pause(i.State, i.Tries+1), true)
			return
		}
	}
}

func (w *Worker) giveBack(ctx context.Context, i *Instance, wait time.Duration, failed bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := i.giveBack(ctx, w.pool, wait, failed); err != nil {
		w.Log.WarnContext(ctx, "saga stays leased until its lease ends", "saga", i.ID, "error", err)
	}
}

// turn makes the call that is next, if one is, and commits what follows from it.
func (w *Worker) turn(ctx, stop context.Context, i *Instance) (err error) {
	_, action, ok := w.definition(i).find(i.Step)
	if !ok {
		return fmt.Errorf("saga %s version %d has no step %q", i.definition, i.version, i.Step)
	}
	var m *made
	switch {
	case action.Call == nil:
	case i.verdict != nil:
		now := i.now(w.Now())
		m = &made{call: callOperator, outcome: *i.verdict, began: now, ended: now}
		m.outcome.testified, i.verdict = true, nil
	case i.Resolving || i.Intent:
		if left := i.leased.Sub(w.Now()); left < w.CallTimeout+time.Second {
			return fmt.Errorf("the lease ends in %v, too soon for a call", left)
		}
		if err := w.dies("call", i.Step); err != nil {
			return err
		}
		if m = w.call(ctx, stop, *action.Call, i); m == nil {
			w.giveBack(ctx, i, w.Policy.Shut(), false) // a lookup can wait
			i.Wait = w.Policy.Shut()
			return nil
		}
		if err := w.dies("called", i.Step); err != nil {
			return err
		}
	}
	return w.submit(ctx, stop, i, m)
}

// submit commits, and tries again while the lease holds: what a call has found out
// is worth more than a slot, since it would have to be looked up anew.
func (w *Worker) submit(ctx, stop context.Context, i *Instance, m *made) error {
	for try := 1; ; try++ {
		err := w.commits.submit(ctx, &entry{saga: i, made: m})
		if err == nil || m == nil || errors.Is(err, ErrFenced) || errors.Is(err, errDead) {
			return err
		}
		pause := w.Policy.pause(i.State, try)
		if i.leased.Sub(w.Now()) < pause+time.Second {
			return err
		}
		w.Log.WarnContext(ctx, "saga not committed, trying again", "saga", i.ID, "step", i.Step, "error", err, "retry_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-stop.Done():
			timer.Stop()
			return err
		}
	}
}

// call makes the call that the position asks for, when its turn comes. An open
// circuit makes none: the intent of an execution is then taken back, and a lookup
// is nil.
func (w *Worker) call(ctx, stop context.Context, c Call, i *Instance) *made {
	m := &made{call: callExecute, digest: i.request().digest()}
	do := c.Execute
	if i.Resolving {
		m.call, do = callLookup, c.Lookup
	}
	done, refusal := w.allow(stop, i)
	m.began = i.now(w.Now())
	switch {
	case refusal == "":
		m.outcome = w.safely(ctx, do, i)
		done(m.outcome.answered())
	case i.Resolving:
		return nil
	default:
		m.outcome = Outcome{Verdict: notSent, Code: refusal}
	}
	m.ended = i.now(w.Now())
	// A process that was stopped in the middle may have sent when its call was long over.
	if m.outcome.sent = m.ended.Add(-w.CallTimeout); m.outcome.sent.Before(m.began) {
		m.outcome.sent = m.began
	}
	return m
}

// allow waits until limit and circuit let a call be made, and says which did not.
// done has to be told whether the call was answered.
func (w *Worker) allow(stop context.Context, i *Instance) (done func(answered bool), refusal string) {
	if w.circuit.open() {
		return nil, "circuit_open"
	}
	p, ok := w.limit.acquire(stop, i.leased.Sub(w.Now())-w.CallTimeout-time.Second)
	if !ok {
		return nil, "no_turn"
	}
	report, ok := w.circuit.allow()
	if !ok {
		w.limit.cancel()
		return nil, "circuit_open"
	}
	return func(answered bool) {
		report(answered)
		w.limit.release(p, answered)
	}, ""
}

// safely takes a panic for what it is: nobody knows what was sent.
func (w *Worker) safely(ctx context.Context, do func(context.Context, Request) Outcome, i *Instance) (o Outcome) {
	ctx, cancel := context.WithTimeout(ctx, w.CallTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			w.Log.ErrorContext(ctx, "call panicked", "saga", i.ID, "step", i.Step, "panic", fmt.Sprint(p))
			o = Outcome{Verdict: Unknown, Code: "panic", InFlight: true}
		}
	}()
	return do(ctx, i.request())
}
