package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"payments/internal/devstack"

	"payments/bench/meter"
	"payments/bench/peer"
	"payments/bench/stack"
	"payments/bench/textbook"
)

// sweep is the concurrency among which a peer's best is looked for.
var sweep = []int{8, 16, 32, 64}

// start of a peer at a concurrency, in a fresh database: what runs until its context ends, and its counter.
type start func(ctx context.Context, ownerURL string, concurrency int) (run func(context.Context) error, done *atomic.Int64, err error)

// inProcess measures a peer that is a library, at the concurrency that was best in a sweep.
func inProcess(name string, start start) func(context.Context, *Runner) (Values, error) {
	return func(ctx context.Context, r *Runner) (Values, error) {
		best, err := r.best(ctx, name, func(concurrency int) (Values, error) {
			return r.peer(ctx, start, concurrency, time.Second, r.short(1500*time.Millisecond, 10*time.Second))
		})
		if err != nil {
			return nil, err
		}
		v, err := r.peer(ctx, start, best, r.short(time.Second, 5*time.Second), r.short(6*time.Second, 30*time.Second))
		if err == nil {
			v["concurrency"] = float64(best)
		}
		return v, err
	}
}

func dbosEmpty(_ context.Context, url string, concurrency int) (func(context.Context) error, *atomic.Int64, error) {
	d := &peer.DBOS{URL: url, Concurrency: concurrency}
	return d.Run, &d.Done, nil
}

const (
	peerMerchant = "mer_bench"
	peerKey      = "key_bench"
	// peerArticle is the only one that a payment of the load generator orders.
	peerArticle = stack.SKU + "-0"
)

// dbosRows writes the textbook's rows of a payment in the transactions of DBOS.
func dbosRows(ctx context.Context, url string, concurrency int) (func(context.Context) error, *atomic.Int64, error) {
	if err := textbook.Migrate(ctx, url, peerMerchant, peerKey, peerArticle, stack.Stock); err != nil {
		return nil, nil, err
	}
	d := &peer.DBOS{URL: url, Concurrency: concurrency, Work: func(ctx context.Context, exec peer.Exec, workflow string, n int) error {
		p := textbook.Payment{
			ID: "pay_" + workflow, OrderID: "ord_" + workflow, SagaID: "sag_" + workflow, MerchantID: peerMerchant, Amount: 1800, Currency: "EUR",
			Method: "pm_card_visa", Customer: "cust-1", Email: "ada@example.com", Reference: "B-" + workflow,
			Lines: []textbook.Line{{SKU: peerArticle, Quantity: 2, UnitAmount: 900}},
		}
		run := textbook.Exec(exec)
		switch n {
		case 0:
			return errors.Join(textbook.Place(ctx, run, p), textbook.Reserve(ctx, run, p))
		case 1:
			return textbook.Authorize(ctx, run, p, "op_authorized")
		case 2:
			return textbook.Capture(ctx, run, p, "op_captured")
		default:
			return textbook.Confirm(ctx, run, p)
		}
	}}
	return d.Run, &d.Done, nil
}

func river(_ context.Context, url string, concurrency int) (func(context.Context) error, *atomic.Int64, error) {
	p := &peer.River{URL: url, Concurrency: concurrency}
	return p.Run, &p.Done, nil
}

// naive is complete of the textbook's service, in a process of its own, at its best number of workers.
func naive(ctx context.Context, r *Runner) (Values, error) {
	best, err := r.best(ctx, "textbook", func(workers int) (Values, error) {
		return r.textbook(ctx, workers, r.short(time.Second, 3*time.Second), r.short(2*time.Second, 10*time.Second))
	})
	if err != nil {
		return nil, err
	}
	v, err := r.textbook(ctx, best, r.short(2*time.Second, 15*time.Second), r.short(10*time.Second, 60*time.Second))
	if err == nil {
		v["concurrency"] = float64(best)
	}
	return v, err
}

func (r *Runner) textbook(ctx context.Context, workers int, warm, during time.Duration) (v Values, err error) {
	base, err := r.stack(ctx)
	if err != nil {
		return nil, err
	}
	t := &trial{}
	t.Install, err = base.Peer(ctx, stack.Merchant{ID: peerMerchant, Key: peerKey}, func(url, simulator, address, topic string) ([]string, error) {
		err := textbook.Migrate(ctx, url, peerMerchant, peerKey, peerArticle, stack.Stock)
		return []string{textbook.Command, url, base.Brokers, topic, simulator, address, strconv.Itoa(workers)}, err
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close(context.WithoutCancel(ctx))) }()
	if err := t.attach(ctx, base, setup{}); err != nil {
		return nil, err
	}
	v, err = t.completeWithin(ctx, nil, warm, during)
	if err != nil {
		return nil, err
	}
	return v, t.watcher.Settle(ctx, settle)
}

// best concurrency of a peer. The sweep is a result of its own, so that it is made once.
func (r *Runner) best(ctx context.Context, name string, measure func(concurrency int) (Values, error)) (int, error) {
	have, err := r.results.load("sweep", name, 1)
	if err != nil {
		return 0, err
	}
	if have == nil {
		have = &Result{Scenario: "sweep", Contender: name, Round: 1, StartedAt: time.Now().UTC(), LoadAverage: loadAverage(), Environment: r.environment, Values: Values{}}
		for _, concurrency := range sweep {
			v, err := measure(concurrency)
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if err != nil { // too much at once may be why
				fmt.Fprintf(r.Out, "          %s at a concurrency of %d: %v\n", name, concurrency, err)
				continue
			}
			have.Values[strconv.Itoa(concurrency)] = v["per_s"]
			fmt.Fprintf(r.Out, "          %s at a concurrency of %d: %.0f/s\n", name, concurrency, v["per_s"])
		}
		if len(have.Values) == 0 {
			return 0, errors.New("it worked at no concurrency")
		}
		if err := r.results.save(*have); err != nil {
			return 0, err
		}
	}
	best := slices.MaxFunc(sweep, func(a, b int) int {
		return cmp.Compare(have.Values[strconv.Itoa(a)], have.Values[strconv.Itoa(b)])
	})
	return best, nil
}

// peer measures what a peer does in this process and in Postgres.
func (r *Runner) peer(ctx context.Context, start start, concurrency int, warm, during time.Duration) (v Values, err error) {
	base, err := r.stack(ctx)
	if err != nil {
		return nil, err
	}
	name, err := base.Database(ctx)
	if err != nil {
		return nil, err
	}
	run, done, err := start(ctx, base.URL(devstack.OwnerRole, name), concurrency)
	if err != nil {
		return nil, err
	}
	database, err := meter.OpenDatabase(ctx, base.URL("postgres", name))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, database.Close(context.WithoutCancel(ctx))) }()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	if err := wait(ctx, warm); err != nil {
		return nil, err
	}
	before, err := r.peerSnapshot(ctx, database, true, done)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, during); err != nil {
		return nil, err
	}
	after, err := r.peerSnapshot(ctx, database, false, done)
	if err != nil {
		return nil, err
	}
	log, err := database.ReadLog(ctx, before.counts.LSN, after.counts.LSN)
	if err != nil {
		return nil, err
	}
	return costs(after.at.Sub(before.at), after.done-before.done, after.cpu.Sub(before.cpu), after.counts.Sub(before.counts), log), nil
}

func (r *Runner) peerSnapshot(ctx context.Context, database *meter.Database, opening bool, done *atomic.Int64) (s snapshot, err error) {
	pids, err := r.running.PIDs()
	if err != nil {
		return s, err
	}
	if opening {
		if s.counts, err = database.Counts(ctx); err != nil {
			return s, err
		}
	}
	s.at, s.done = time.Now(), done.Load()
	if s.cpu, err = meter.ReadCPU(map[string]int{"postgres": pids["postgres"]}); err != nil {
		return s, err
	}
	if s.cpu["service"], err = meter.Self(); err != nil {
		return s, err
	}
	if !opening {
		s.counts, err = database.Counts(ctx)
	}
	return s, err
}
