package saga

import (
	"cmp"
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
	"github.com/sony/gobreaker/v2"

	"payments/internal/groupcommit"
)

// Config of a Worker. Every member but Calls, Open, Only, Prepare, Committed and Crash is needed.
type Config struct {
	Definitions []Definition
	Policy      Policy
	// Owner tells this worker from all others, living or dead.
	Owner string
	// CallTimeout bounds one call; Lease must leave room for it and a commit.
	CallTimeout, Lease time.Duration
	// Concurrency is how many sagas are in hand at once at most: in a call, waiting for
	// one, or in a commit.
	Concurrency int
	// Calls is how many calls are under way at once at most; the answers to them decide
	// how many are. 0: Concurrency.
	Calls int
	// Open makes the unit of work of a commit: it locks what the steps will change, in one
	// order for all, so that two commits cannot deadlock, and reads it then. nil: the unit
	// is a Transaction.
	Open func(ctx context.Context, tx pgx.Tx, merchantID string, plans []Plan) (Unit, error)
	// Only, if set, names what a saga has to wait for (see Call.Ready) to be claimed by this
	// worker; nothing else is. "": nothing is claimed for now.
	Only func() string
	// Prepare runs before each saga is driven, outside of any transaction, for at most
	// CallTimeout: it may find out what the calls' Ready needs to know. nil: nothing.
	Prepare func(context.Context)
	// Committed is called after each commit, as a hint: steps have changed what they are about.
	// nil: nothing.
	Committed func()
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

// StartPoints are those of a saga that begins in a worker's hand: before the commit that makes
// it, and behind it.
func StartPoints() []string { return []string{"start", "started"} }

const (
	// maxBatch bounds the sagas of one commit, and so how long it holds the locks of
	// articles that others wait for.
	maxBatch = 32
	// maxClaim bounds the sagas of one claim, and so its pages.
	maxClaim = 10
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
	held     []string  // "name version" of each definition
	claims   claims    // RunOnce's own
	lookAt   time.Time // RunOnce's own: before it claimOnly does not look again
	slots    chan struct{}
	fresh    atomic.Int64 // of those in hand, how many had not begun when they were claimed
	turns    int          // RunOnce's own
	more     atomic.Bool  // the last poll left due sagas, or had no slot for them
	wake     chan struct{}
	commits  *groupcommit.Group[*entry]
	circuit  circuit
	limit    *limit
	inHand   sync.WaitGroup
	reserved atomic.Int64 // slots whose saga is not committed yet
	mu       sync.Mutex
	drains   bool                            // Drain waits, or has waited, since the last RunOnce
	stop     atomic.Pointer[context.Context] // of the newest RunOnce, once the definitions are registered
	dead     atomic.Bool                     // Crash said so
	// registered: the database knows the definitions with the steps that this worker has.
	registered atomic.Bool
	metrics    metrics
}

// NewWorker checks the definitions and the times.
func NewWorker(pool *pgxpool.Pool, c Config) (*Worker, error) {
	if c.Lease < c.CallTimeout+2*time.Second {
		return nil, fmt.Errorf("a lease of %v ends before a call of %v and its commit", c.Lease, c.CallTimeout)
	}
	if c.Calls = cmp.Or(c.Calls, c.Concurrency); c.Concurrency < 1 || c.Calls < 1 {
		return nil, errors.New("a saga worker needs a concurrency and calls of at least 1")
	}
	if c.Open == nil {
		c.Open = func(_ context.Context, tx pgx.Tx, _ string, _ []Plan) (Unit, error) { return Transaction{tx}, nil }
	}
	if c.Committed == nil {
		c.Committed = func() {}
	}
	w := &Worker{
		Config: c, pool: pool, byName: map[string]map[int]Definition{},
		slots: make(chan struct{}, c.Concurrency), wake: make(chan struct{}, 1), metrics: newMetrics(c.Registerer),
	}
	w.commits = groupcommit.New(maxBatch, parallelCommits, w.commitAll)
	watch := newCallsWatch(w.metrics, c.Log, c.Calls, c.Now)
	w.limit = newLimit(c.Calls, watch.allowedChanged)
	w.circuit = newCircuit(c.Policy.Shut(), func(from, to gobreaker.State) {
		watch.circuitChanged(from, to)
		if to == gobreaker.StateOpen {
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
		w.held = append(w.held, d.key())
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

// Woken fires after Wake, or when slots became free and due sagas wait for them.
func (w *Worker) Woken() <-chan struct{} { return w.wake }

// RunOnce claims as many due sagas as there are free slots and drives them in the
// background; again is true when there may be more and a slot for them. It claims
// nothing before its definitions are registered. Error: ErrChanged.
func (w *Worker) RunOnce(ctx context.Context) (again bool, err error) {
	if w.dead.Load() {
		return false, nil
	}
	if !w.registered.Load() {
		if err := w.Register(ctx); err != nil {
			return false, err
		}
	}
	w.opens(ctx)
	free := min(cap(w.slots)-len(w.slots), w.limit.room(), maxClaim)
	if free <= 0 {
		w.more.Store(true)
		return false, nil
	}
	var claimed []*Instance
	if w.Only != nil {
		claimed, err = w.claimOnly(ctx, free)
	} else {
		claimed, err = w.claim(ctx, free, w.share(free))
	}
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
				w.freed()
			}()
			w.drive(ctx, i)
		})
	}
	again = len(claimed) == free
	w.more.Store(again)
	return again, nil
}

// freed wakes the poll when there are slots for a whole claim: a claim for each slot would
// cost more than what it claims.
func (w *Worker) freed() {
	enough := min(maxClaim, max(cap(w.slots)/freshShare, 1))
	if w.more.Load() && cap(w.slots)-len(w.slots) >= enough {
		w.Wake()
	}
}

// share is how many of the free slots are for sagas that have not begun: they have one
// in freshShare of all in hand. Few slots are shared turn by turn: if one kind always
// had the only one, the other would wait for as long as there is enough of the first.
func (w *Worker) share(free int) int {
	w.turns++
	inHand := len(w.slots) + free
	return max((inHand+w.turns%freshShare)/freshShare-int(w.fresh.Load()), 0)
}

// Drain waits for the sagas in hand. After the context of RunOnce has ended each
// finishes its step and gives its lease back. Until the next RunOnce there are no slots.
func (w *Worker) Drain() {
	w.mu.Lock()
	w.drains = true
	w.mu.Unlock()
	w.inHand.Wait()
}

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
	if w.Prepare != nil {
		preparing, cancel := context.WithTimeout(ctx, w.CallTimeout)
		w.Prepare(preparing)
		cancel()
	}
	w.goOn(stop, i)
}

// goOn drives a saga from where it stands: at the intent of a call, if it has one, that was not
// made yet.
func (w *Worker) goOn(stop context.Context, i *Instance) {
	ctx := context.WithoutCancel(stop)
	for i.live() && i.Wait == 0 {
		if stop.Err() != nil {
			w.leave(ctx, stop, i)
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
		case errors.Is(err, errLate): // it waited for the machine or the database, and did nothing wrong
			w.Log.WarnContext(ctx, "saga given back, since its lease ends too soon for a call", "saga", i.ID, "step", step)
			w.leave(ctx, stop, i)
			return
		default:
			w.metrics.errors.Inc()
			w.Log.ErrorContext(ctx, "saga turn failed", "saga", i.ID, "step", step, "error", err)
			w.giveBack(ctx, i, w.Policy.pause(i.State, i.Tries+1), true)
			return
		}
	}
}

// leave gives a saga back at a stop. A call that never began is withdrawn first: the worker
// that takes the saga over would have to wait until it can no longer be under way.
func (w *Worker) leave(ctx, stop context.Context, i *Instance) {
	if i.Intent && !i.Resolving {
		now := i.now(w.Now())
		m := &made{call: callExecute, digest: i.request().digest(), outcome: withdrawn, began: now, ended: now}
		err := w.submit(ctx, stop, i, m)
		if err == nil || errors.Is(err, errDead) || errors.Is(err, ErrFenced) {
			return
		}
		w.Log.WarnContext(ctx, "intent of a call that never began stays", "saga", i.ID, "step", i.Step, "error", err)
	}
	w.giveBack(ctx, i, 0, false)
}

// withdrawn is the outcome of a call that a stop came before. The saga is due at once.
var withdrawn = Outcome{Verdict: notSent, Code: "stopped", Again: time.Millisecond}

func (w *Worker) giveBack(ctx context.Context, i *Instance, wait time.Duration, failed bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := i.giveBack(ctx, w.pool, wait, failed); err != nil {
		w.Log.WarnContext(ctx, "saga stays leased until its lease ends", "saga", i.ID, "error", err)
	}
}

// errLate is of a lease that ends too soon for a call.
var errLate = errors.New("the lease ends too soon for a call")

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
		lacks, err := action.Call.ready(i)
		if err != nil {
			return fmt.Errorf("%s: %w", i.Step, err)
		}
		if lacks != "" {
			i.position = i.lack(lacks, i.now(w.Now()), w.Policy)
			w.giveBack(ctx, i, i.Wait, false)
			return nil
		}
		if i.leased.Sub(w.Now()) < w.CallTimeout+time.Second {
			return errLate
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
		e := &entry{saga: i, made: m}
		err := w.commits.Submit(ctx, i.MerchantID, e) // nil: ctx has no end
		if err == nil {
			err = e.err
		}
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
	case stop.Err() != nil:
		m.outcome = withdrawn
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
	return do(ctx, i.request()).storable()
}
