package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/postgres"
)

// Config of a Worker. Every member is needed.
type Config struct {
	Definitions []Definition
	Policy      Policy
	// Owner tells this worker from all others, living or dead.
	Owner string
	// CallTimeout bounds one call; Lease must leave room for it and a commit.
	CallTimeout, Lease time.Duration
	Concurrency        int
	Now                func() time.Time
	Log                *slog.Logger
	Registerer         prometheus.Registerer
}

// Worker claims due sagas and drives each until it waits or ends.
type Worker struct {
	Config
	pool     *pgxpool.Pool
	byName   map[string]map[int]Definition
	names    []string
	versions []int
	slots    chan struct{}
	wake     chan struct{}
	inHand   sync.WaitGroup
	metrics  metrics
}

// NewWorker checks the definitions and the times.
func NewWorker(pool *pgxpool.Pool, c Config) (*Worker, error) {
	if c.Lease < c.CallTimeout+2*time.Second {
		return nil, fmt.Errorf("a lease of %v ends before a call of %v and its commit", c.Lease, c.CallTimeout)
	}
	if c.Concurrency < 1 {
		return nil, errors.New("a saga worker needs a concurrency of at least 1")
	}
	w := &Worker{Config: c, pool: pool, byName: map[string]map[int]Definition{},
		slots: make(chan struct{}, c.Concurrency), wake: make(chan struct{}, 1), metrics: newMetrics(c.Registerer)}
	for _, d := range c.Definitions {
		if err := d.Check(); err != nil {
			return nil, err
		}
		if w.byName[d.Name] == nil {
			w.byName[d.Name] = map[int]Definition{}
		}
		w.byName[d.Name][d.Version] = d
		w.names, w.versions = append(w.names, d.Name), append(w.versions, d.Version)
	}
	return w, nil
}

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
// background; again is true when there may be more and a slot for them.
func (w *Worker) Turn(ctx context.Context) (again bool, err error) {
	free := cap(w.slots) - len(w.slots)
	if free == 0 {
		return false, nil
	}
	claimed, err := claim(ctx, w.pool, w.Owner, w.names, w.versions, w.Lease, free, w.Now)
	if err != nil {
		return false, err
	}
	for _, i := range claimed {
		w.slots <- struct{}{}
		w.inHand.Go(func() {
			defer func() {
				<-w.slots
				w.Wake()
			}()
			w.drive(ctx, i)
		})
	}
	return len(claimed) == free, nil
}

// Drain waits for the sagas in hand. After the context of Turn has ended each
// finishes its step and gives its lease back.
func (w *Worker) Drain() { w.inHand.Wait() }

func (w *Worker) drive(stop context.Context, i *Instance) {
	ctx := context.WithoutCancel(stop)
	d := w.byName[i.definition][i.version]
	if i.Intent && !i.Resolving {
		i.position = i.lost(i.now(w.Now()), w.Policy)
	}
	for i.live() && i.Wait == 0 {
		if stop.Err() != nil {
			w.giveBack(ctx, i, 0, false)
			return
		}
		err := w.turn(ctx, d, i)
		switch {
		case err == nil:
		case errors.Is(err, ErrFenced):
			w.metrics.fenced.Inc()
			w.Log.WarnContext(ctx, "saga fenced", "saga", i.ID, "step", i.Step, "epoch", i.epoch)
			return
		default:
			w.metrics.errors.Inc()
			w.Log.ErrorContext(ctx, "saga turn failed", "saga", i.ID, "step", i.Step, "error", err)
			w.giveBack(ctx, i, w.Policy.Backoff(i.Tries+1), true)
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
func (w *Worker) turn(ctx context.Context, d Definition, i *Instance) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in step %s: %v", i.Step, p)
		}
	}()
	_, action, ok := d.find(i.Step)
	if !ok {
		return fmt.Errorf("saga %s version %d has no step %q", d.Name, d.Version, i.Step)
	}
	if action.Call == nil || !i.Resolving && !i.Intent {
		return w.commit(ctx, d, i, nil)
	}
	if left := i.leased.Sub(w.Now()); left < w.CallTimeout+time.Second {
		return fmt.Errorf("the lease ends in %v, too soon for a call", left)
	}
	made := &made{call: "execute"}
	execute := action.Call.Execute
	if i.Resolving {
		made.call, execute = "lookup", action.Call.Lookup
	}
	cctx, cancel := context.WithTimeout(ctx, w.CallTimeout)
	defer cancel()
	began := w.Now()
	made.outcome = execute(cctx, Request{Key: i.key(), Data: i.Data})
	made.outcome.sent, made.took = i.now(began), w.Now().Sub(began)
	return w.commit(ctx, d, i, made)
}

// made is a call and what came of it.
type made struct {
	call    string
	outcome Outcome
	took    time.Duration
}

// commit writes, in one transaction, the outcome of the call that was made, every
// local step that follows, and the intent of the next call.
func (w *Worker) commit(ctx context.Context, d Definition, i *Instance, m *made) error {
	began := w.Now()
	next := *i
	err := postgres.InTx(ctx, w.pool, func(tx pgx.Tx) error {
		if m != nil {
			if err := w.apply(ctx, tx, d, &next, *m); err != nil {
				return err
			}
		}
		for next.live() && next.Wait == 0 {
			_, action, _ := d.find(next.Step)
			if action.Local == nil {
				if !next.Intent && !next.Resolving {
					if err := next.intend(ctx, tx); err != nil {
						return err
					}
				}
				break
			}
			if err := w.apply(ctx, tx, d, &next, made{call: "local"}); err != nil {
				return err
			}
		}
		return next.save(ctx, tx, w.Owner, w.Lease)
	})
	if err != nil {
		return err
	}
	next.leased = began.Add(w.Lease)
	*i = next
	if !i.live() {
		w.metrics.finished.WithLabelValues(d.Name, string(i.State)).Inc()
	}
	return nil
}

// apply writes one attempt's outcome, its meaning, and the position after it.
func (w *Worker) apply(ctx context.Context, tx pgx.Tx, d Definition, i *Instance, m made) error {
	_, action, _ := d.find(i.Step)
	record := func() error { return nil }
	if action.Local != nil {
		// The attempt is concluded after the step, so it is told to the step beforehand.
		now := i.now(w.Now())
		i.Attempts = []Attempt{{Number: i.number + 1, Step: i.Step, Call: m.call, Outcome: Succeeded, StartedAt: now, Finished: now}}
		outcome, err := action.Local(ctx, tx, i)
		if err != nil {
			return fmt.Errorf("%s: %w", i.Step, err)
		}
		if outcome.Verdict != Succeeded && outcome.Verdict != Rejected {
			return fmt.Errorf("%s: a local step must succeed or be rejected, not %s", i.Step, outcome.Verdict)
		}
		m.outcome = outcome
	} else if m.outcome.Verdict == Succeeded || m.outcome.Verdict == Rejected {
		record = func() error { return action.Call.Record(ctx, tx, i, m.outcome) }
	}
	if err := i.conclude(ctx, tx, m.call, m.took, m.outcome); err != nil {
		return err
	}
	if err := record(); err != nil {
		return fmt.Errorf("record %s: %w", i.Step, err)
	}
	i.position = d.decide(i.position, m.outcome, i.now(w.Now()), w.Policy)
	switch i.State {
	case Running, Compensating:
	case Completed:
		return d.Completed(ctx, tx, i)
	case Compensated:
		return d.Compensated(ctx, tx, i)
	case Parked:
		w.Log.ErrorContext(ctx, "saga parked for a person", "saga", i.ID, "step", i.Step, "code", i.Rejection.Code)
		return d.Parked(ctx, tx, i, i.Rejection.Detail)
	}
	return nil
}
