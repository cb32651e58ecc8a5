package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"payments/bench/meter"
	"payments/bench/stack"
)

// Options of a run.
type Options struct {
	Program string   // the built binary of the service
	Dir     string   // of the results; made when it is not there
	Quick   bool     // a few minutes for everything, and fewer contenders
	Rounds  int      // of each contender of each scenario
	Only    []string // scenarios; none: all
	Fresh   bool     // results that are there are removed first
	Out     io.Writer
	Brokers string // of a Kafka that runs already; empty: the embedded broker
	// Settings of Postgres on top of those of `payments demo`.
	Settings []string
}

// Runner measures what has no result yet.
type Runner struct {
	Options
	results     results
	environment Environment
	running     *stack.Stack
}

// contender is measured once a round in its scenario.
type contender struct {
	name    string
	once    bool // takes long, and is measured in the first round only
	measure func(ctx context.Context, r *Runner) (Values, error)
}

// scenario has its contenders measured in turn, so that what else the machine does hits them all.
type scenario struct {
	name, title string
	slow        bool // left out of a quick run
	contenders  []contender
	columns     []column
}

// Run measures and prints, scenario by scenario.
func Run(ctx context.Context, o Options) (err error) {
	if _, err := os.Stat(o.Program); err != nil {
		return fmt.Errorf("the service's program: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return err
	}
	r := &Runner{Options: o, results: results{o.Dir}}
	if o.Fresh {
		if err := r.results.remove(); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, r.close()) }()
	chosen := slices.DeleteFunc(scenarios(o.Quick), func(s scenario) bool {
		if len(o.Only) > 0 {
			return !slices.Contains(o.Only, s.name)
		}
		return o.Quick && s.slow
	})
	if len(chosen) == 0 {
		return fmt.Errorf("no scenario is one of %v", o.Only)
	}
	var failed error
	for _, s := range chosen {
		if err := r.scenario(ctx, s); err != nil {
			failed = errors.Join(failed, err)
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), failed)
		}
		if err := r.print(s); err != nil {
			return err
		}
	}
	return failed
}

func (r *Runner) scenario(ctx context.Context, s scenario) error {
	var failed error
	for round := 1; round <= r.Rounds; round++ {
		for _, c := range s.contenders {
			if c.once && round > 1 {
				continue
			}
			if err := r.round(ctx, s, c, round); err != nil {
				failed = errors.Join(failed, err)
			}
			if ctx.Err() != nil {
				return failed
			}
		}
	}
	return failed
}

// round measures unless there is a result. A failure is a result, too, and does not end the run.
func (r *Runner) round(ctx context.Context, s scenario, c contender, round int) error {
	have, err := r.results.load(s.name, c.name, round)
	if err != nil || have != nil {
		return err
	}
	if _, err := r.stack(ctx); err != nil {
		return err
	}
	one := Result{Scenario: s.name, Contender: c.name, Round: round, StartedAt: time.Now().UTC(), LoadAverage: loadAverage(), Environment: r.environment}
	fmt.Fprintf(r.Out, "%s  %s, %s, round %d, load average %s\n", one.StartedAt.Format(time.TimeOnly), s.name, c.name, round, one.LoadAverage)
	one.Values, err = c.measure(ctx, r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	one.Took = time.Since(one.StartedAt)
	if err != nil {
		one.Failed, one.Values = err.Error(), nil
		err = fmt.Errorf("%s, %s, round %d has no figure: %w", s.name, c.name, round, err)
		fmt.Fprintln(r.Out, err)
	}
	return errors.Join(err, r.results.save(one))
}

// stack is started when the first round needs it.
func (r *Runner) stack(ctx context.Context) (*stack.Stack, error) {
	if r.running != nil {
		return r.running, nil
	}
	running, err := stack.Start(ctx, stack.Config{Program: r.Program, Brokers: r.Brokers, Settings: append(meter.Settings(), r.Settings...)})
	if err != nil {
		return nil, err
	}
	r.running = running
	if r.environment, err = readEnvironment(ctx, running.URL("postgres", "postgres")); err != nil {
		return nil, err
	}
	fmt.Fprintf(r.Out, "%sresults   %s\n\n", r.environment, r.Dir)
	return running, nil
}

func (r *Runner) close() error {
	if r.running == nil {
		return nil
	}
	return r.running.Stop()
}

// short is the first duration in a quick run.
func (r *Runner) short(quick, full time.Duration) time.Duration {
	if r.Quick {
		return quick
	}
	return full
}
