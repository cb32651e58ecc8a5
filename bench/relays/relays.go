// Package relays puts the outbox beside what others use, on one machine and in one
// run: a Postgres and a Kafka-protocol broker are started, every contender gets the
// same events in a fresh database and topic, and a table is printed. ours-kafka and
// debezium stand on an Apache Kafka instead, and on a Postgres with wal_level=logical;
// where Java, Maven or Maven Central is missing, their rows say so.
//
//	drained/s   a backlog of -events in the table is published: from the relay's
//	            start until the broker has all of it
//	p50, p99    from a commit's return to a consumer's receipt, while writers append
//	            -rate events a second; the first five seconds are not counted
//	lost, twice, inverted
//	            of the events of that second part: never received, received again, and
//	            received before an event of the same key that precedes them
//
// Broker, relay, writers and consumer share the machine's cores with Postgres, so
// that the numbers are of the whole path, and the faster a contender the more it is
// held up by what is beside it.
package relays

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

type options struct {
	events  int
	rate    int
	perTx   int
	seconds int
	hold    time.Duration
	only    string
	profile string
}

// Run measures the contenders that the arguments choose and prints their table.
func Run(ctx context.Context, args []string, out io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("bench relays", flag.ContinueOnError)
	flags.IntVar(&o.events, "events", 300_000, "events of the backlog")
	flags.IntVar(&o.rate, "rate", 2000, "events a second while latency is measured")
	flags.IntVar(&o.perTx, "per-tx", 4, "events that a writer commits together")
	flags.IntVar(&o.seconds, "seconds", 20, "how long latency is measured")
	flags.DurationVar(&o.hold, "hold", 0, "how long every contender is under load before it is measured, and a transaction held open for as long")
	flags.StringVar(&o.only, "only", "", "contenders, by a comma: ours, ours-open-tx, flag-update, flag-update-open-tx, watermill, ours-kafka, debezium")
	flags.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of this process there")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Fprintf(out, "%-20s %10s %8s %8s %8s %6s %6s %8s\n", "", "drained/s", "p50 ms", "p99 ms", "events", "lost", "twice", "inverted")
	for _, realKafka := range []bool{false, true} {
		if err := compare(ctx, out, realKafka, o); err != nil {
			return err
		}
	}
	return nil
}

// compare measures the contenders of one stack, if any were chosen.
func compare(ctx context.Context, out io.Writer, realKafka bool, o options) (err error) {
	chosen := slices.DeleteFunc(contenders(), func(c contender) bool {
		return c.realKafka != realKafka || o.only != "" && !slices.Contains(strings.Split(o.only, ","), c.name)
	})
	if len(chosen) == 0 {
		return nil
	}
	s, err := startStack(ctx, realKafka, slog.New(slog.DiscardHandler))
	if missing, ok := errors.AsType[missingError](err); ok {
		for _, c := range chosen {
			fmt.Fprintf(out, "%-20s not here: %s\n", c.name, missing)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, c := range chosen {
		r, err := measure(ctx, s, c, o)
		if missing, ok := errors.AsType[missingError](err); ok {
			fmt.Fprintf(out, "%-20s not here: %s\n", c.name, missing)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Fprintf(out, "%-20s %10.0f %8.1f %8.1f %8d %6d %6d %8d\n", c.name, r.drained, ms(r.p50), ms(r.p99), r.events, r.lost, r.twice, r.inverted)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
