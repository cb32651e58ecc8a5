package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"payments/bench/load"
	"payments/bench/meter"
	"payments/bench/stack"
)

// trial is an installation of ours under measurement.
type trial struct {
	*stack.Install
	client   *load.Client
	watcher  *load.Watcher
	database *meter.Database
	broker   *meter.Broker
	seeded   time.Time // when there was all that the provider knows nothing of; zero: there is nothing of that kind

	watching *errgroup.Group
	stop     context.CancelFunc
}

// settle bounds how long unfinished work may take after a load has ended.
const settle = 3 * time.Minute

type setup struct {
	merchants int               // 1 unless set
	services  int               // 1 unless set
	skus      int64             // articles that are ordered in turn; 1 unless set
	vars      map[string]string // of every service
	poll      time.Duration     // of the watcher; 100 ms unless set
	before    func(context.Context, *stack.Install) error
}

func (r *Runner) open(ctx context.Context, s setup) (t *trial, err error) {
	base, err := r.stack(ctx)
	if err != nil {
		return nil, err
	}
	t = &trial{}
	if t.Install, err = base.Install(ctx, max(s.merchants, 1)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close(context.WithoutCancel(ctx)))
		}
	}()
	if s.before != nil {
		if err := s.before(ctx, t.Install); err != nil {
			return t, err
		}
		t.seeded = time.Now()
	}
	for range max(s.services, 1) {
		if _, err := t.Serve(ctx, s.vars); err != nil {
			return t, err
		}
	}
	err = t.attach(ctx, base, s)
	return t, err
}

// attach the meters and the load generator.
func (t *trial) attach(ctx context.Context, base *stack.Stack, s setup) (err error) {
	url := base.URL("postgres", t.Database)
	if t.database, err = meter.OpenDatabase(ctx, url); err != nil {
		return err
	}
	if s.poll == 0 {
		s.poll = 100 * time.Millisecond
	}
	if t.watcher, err = load.NewWatcher(ctx, url, s.poll); err != nil {
		return err
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	t.watching, t.stop = new(errgroup.Group), stop
	t.watching.Go(func() error { return t.watcher.Run(watching) })
	if t.broker, err = meter.OpenBroker(base.Brokers, t.Topics()); err != nil {
		return err
	}
	t.client = load.NewClientOf(t.Install, max(s.skus, 1))
	if s.vars["PAYMENTS_ROLES"] != "" {
		return nil
	}
	return t.warm(ctx)
}

// warm lets one payment reach the read model, which takes seconds in a new consumer group.
func (t *trial) warm(ctx context.Context) error {
	var tally load.Tally
	paid, err := t.client.Pay(ctx, 0, false)
	if err != nil {
		return err
	}
	if paid.Shed() {
		return errors.New("the first payment was refused")
	}
	t.watcher.Watch(paid.Merchant, paid.ID, tally.Ended)
	return errors.Join(t.watcher.Settle(ctx, settle), healthy(&tally))
}

// audit fails unless every invariant holds. Seeded payments are not compared with the provider.
func (t *trial) audit(ctx context.Context, args ...string) error {
	if !t.seeded.IsZero() {
		args = append(args, "-from", t.seeded.UTC().Format(time.RFC3339Nano))
	}
	return t.Audit(ctx, args...)
}

// finish lets everything that was accepted end, audits, and stops. Without a clean audit there is no figure.
func (t *trial) finish(ctx context.Context) error {
	err := t.watcher.Settle(ctx, settle)
	if err == nil {
		err = t.consumed(ctx)
	}
	if err == nil {
		err = t.audit(ctx, "-settled")
	}
	return errors.Join(err, t.close(ctx))
}

// consumed waits until every consumer has had every event.
func (t *trial) consumed(ctx context.Context) error {
	deadline := time.Now().Add(settle)
	for {
		n, _, err := t.broker.Lag(ctx, "")
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("consumers are still %d events behind %s after the load ended", n, settle)
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (t *trial) close(ctx context.Context) error {
	var err error
	if t.client != nil {
		t.client.Close()
	}
	if t.stop != nil {
		t.stop()
		err = t.watching.Wait()
	}
	if t.broker != nil {
		t.broker.Close()
	}
	if t.database != nil {
		err = errors.Join(err, t.database.Close(ctx))
	}
	return errors.Join(err, t.Stop())
}

// snapshot is all counters at one moment.
type snapshot struct {
	at     time.Time
	cpu    meter.CPU
	counts meter.Counts
	done   int64 // payments
	lag    int64 // events
}

// snapshot reads the counters outside of the window, since reading them costs Postgres some 20 ms.
func (t *trial) snapshot(ctx context.Context, opening bool, done func() int64) (s snapshot, err error) {
	if opening {
		err = t.count(ctx, &s)
	}
	if err == nil {
		err = t.clock(&s, done)
	}
	if err == nil && !opening {
		err = t.count(ctx, &s)
	}
	return s, err
}

func (t *trial) count(ctx context.Context, s *snapshot) (err error) {
	if s.counts, err = t.database.Counts(ctx); err != nil {
		return err
	}
	s.lag, _, err = t.broker.Lag(ctx, "")
	return err
}

func (t *trial) clock(s *snapshot, done func() int64) error {
	pids, err := t.PIDs()
	if err != nil {
		return err
	}
	pids["watcher"] = t.watcher.PID()
	s.at, s.done = time.Now(), done()
	if s.cpu, err = meter.ReadCPU(pids); err != nil {
		return err
	}
	own, err := meter.Self()
	s.cpu["load"] = own + s.cpu["watcher"]
	s.cpu["postgres"] -= s.cpu["watcher"]
	delete(s.cpu, "watcher")
	for name, used := range s.cpu {
		if strings.HasPrefix(name, "service ") {
			s.cpu["service"] += used
			delete(s.cpu, name)
		}
	}
	return err
}

// window measures for d what a payment costs, while something else makes the load. Payments are
// counted by done.
func (t *trial) window(ctx context.Context, d time.Duration, done func() int64) (Values, error) {
	before, err := t.snapshot(ctx, true, done)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, d); err != nil {
		return nil, err
	}
	after, err := t.snapshot(ctx, false, done)
	if err != nil {
		return nil, err
	}
	v, err := t.cost(ctx, before, after)
	if err != nil {
		return nil, err
	}
	if v["memory_now_mib"], v["memory_mib"], err = t.memory(); err != nil {
		return nil, err
	}
	v["lag_events"] = float64(after.lag)
	return v, nil
}

// memory of the largest service, now and at most, in MiB.
func (t *trial) memory() (now, peak float64, err error) {
	for _, s := range t.Services {
		is, most, err := meter.Memory(s.PID())
		if err != nil {
			return 0, 0, err
		}
		now, peak = max(now, float64(is)/(1<<20)), max(peak, float64(most)/(1<<20))
	}
	return now, peak, nil
}

// cost gives the rate, and everything else by payment, between two snapshots.
func (t *trial) cost(ctx context.Context, before, after snapshot) (Values, error) {
	log, err := t.database.ReadLog(ctx, before.counts.LSN, after.counts.LSN)
	if err != nil {
		return nil, err
	}
	return costs(after.at.Sub(before.at), after.done-before.done, after.cpu.Sub(before.cpu), after.counts.Sub(before.counts), log), nil
}

// costs by payment, or by whatever was done so often.
func costs(took time.Duration, done int64, cpu meter.CPU, c meter.Counts, log meter.Log) Values {
	v := Values{"per_s": float64(done) / took.Seconds(), "done": float64(done), "seconds": took.Seconds()}
	sum := 0.0
	for name, used := range cpu {
		v["core_"+name] = used.Seconds() / took.Seconds() * 100
		sum += used.Seconds()
	}
	v["core_sum"] = sum / took.Seconds() * 100
	if done == 0 {
		return v
	}
	n := float64(done)
	for name, used := range cpu {
		v["cpu_"+name] = used.Seconds() * 1000 / n
	}
	v["cpu_sum"] = sum * 1000 / n
	for name, count := range map[string]int64{
		"statements": c.Statements, "commits": log.Commits, "wal_syncs": c.WALSyncs, "inserted": c.Inserted, "updated": c.Updated,
		"hot": c.HotUpdated, "deleted": c.Deleted, "dead": c.Dead,
	} {
		v[name] = float64(count) / n
	}
	v["wal_kb"], v["disk_kb"], v["outbox_kb"] = float64(c.WAL)/1024/n, float64(c.Size)/1024/n, float64(c.Outbox)/1024/n
	return v
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantiles puts p50, p99 and the number of the latencies among the values.
func quantiles(v Values, name string, l *meter.Latencies) {
	q := l.Quantiles(0.5, 0.99)
	v[name+"_p50"], v[name+"_p99"], v[name+"_n"] = milliseconds(q[0]), milliseconds(q[1]), float64(l.Count())
}

// healthy fails when a request went wrong or a payment ended otherwise than it had to.
func healthy(t *load.Tally) error {
	if err := t.Err(); err != nil {
		return err
	}
	if n := t.Failed.Load(); n > 0 {
		return fmt.Errorf("%d payments did not succeed", n)
	}
	return nil
}
