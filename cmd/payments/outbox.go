package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/broker"
	"payments/internal/config"
	"payments/internal/inbox"
	"payments/internal/outbox"
	"payments/internal/payment"
)

const outboxUsage = `payments outbox status
payments outbox reset [-from TIME]
payments outbox lost [-settle]
`

// outboxCommand is one verb with what its flags say.
type outboxCommand struct {
	environment
	pool   *pgxpool.Pool // as the tables' owner
	from   time.Time
	settle bool
}

var outboxVerbs = map[string]func(outboxCommand, context.Context) error{
	"status": outboxCommand.status, "reset": outboxCommand.reset, "lost": outboxCommand.lost,
}

// runOutbox shows where the relays stand, and repairs that after a restore.
func runOutbox(ctx context.Context, e environment) error {
	if len(e.args) == 0 || outboxVerbs[e.args[0]] == nil {
		fmt.Fprint(e.stderr, outboxUsage)
		return errors.New("name one of " + strings.Join(slices.Sorted(maps.Keys(outboxVerbs)), ", "))
	}
	verb := e.args[0]
	c := outboxCommand{environment: e}
	flags := flag.NewFlagSet("outbox "+verb, flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	flags.Usage = func() { fmt.Fprint(e.stderr, outboxUsage) }
	if verb == "reset" {
		flags.Func("from", "publish again what was made at this time or later", func(s string) (err error) {
			c.from, err = parseTime("-from", s)
			return err
		})
	}
	if verb == "lost" {
		flags.BoolVar(&c.settle, "settle", false, "say that what they told was dealt with")
	}
	if err := flags.Parse(e.args[1:]); err != nil {
		return err
	}
	if c.args = flags.Args(); c.noArguments() != nil {
		return c.noArguments()
	}
	m, err := config.LoadMigrate(e.lookup)
	if err != nil {
		return err
	}
	if c.pool, err = openMigrated(ctx, "PAYMENTS_MIGRATE_DATABASE_URL", m.OwnerURL); err != nil {
		return err
	}
	defer c.pool.Close()
	return outboxVerbs[verb](c, ctx)
}

func (c outboxCommand) status(ctx context.Context) error {
	here, shards, err := outbox.Standings(ctx, c.pool)
	if err != nil {
		return err
	}
	oldest, err := outbox.OldestUnpublished(ctx, c.pool)
	if err != nil {
		return err
	}
	lost, err := outbox.ListLost(ctx, c.pool)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "server      %d, timeline %d\nunpublished the oldest event is %s old\nlost        %d published events have no commit\n\n",
		here.SystemIdentifier, here.Timeline, oldest.Round(time.Millisecond), len(lost))
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SHARD\tCHECKPOINT OF\tTIMELINE\tPROVEN")
	for _, s := range shards {
		identifier, timeline := "unknown", "unknown"
		if s.Server != nil {
			identifier, timeline = strconv.FormatInt(s.Server.SystemIdentifier, 10), strconv.Itoa(int(s.Server.Timeline))
		}
		proven := "yes"
		if !s.Proven {
			proven = "no: run `payments outbox reset`"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", s.Shard, identifier, timeline, proven)
	}
	return w.Flush()
}

func (c outboxCommand) reset(ctx context.Context) error {
	done, err := outbox.Reset(ctx, c.pool, c.from)
	if errors.Is(err, outbox.ErrNotOwner) {
		return fmt.Errorf("PAYMENTS_MIGRATE_DATABASE_URL: %w", err)
	}
	if err != nil {
		return err
	}
	if done.Again+done.Kept > 0 || c.from.IsZero() {
		_, err = fmt.Fprintf(c.stdout, "The checkpoints are of server %d, timeline %d, now. %d events are published again, %d were proven to be published.\n",
			done.Server.SystemIdentifier, done.Server.Timeline, done.Again, done.Kept)
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "What was made since %s is published again.\n", c.from.UTC().Format(time.RFC3339))
	return err
}

func (c outboxCommand) lost(ctx context.Context) error {
	if c.settle {
		n, err := outbox.SettleLost(ctx, c.pool)
		if err == nil {
			_, err = fmt.Fprintf(c.stdout, "%d lost events are settled.\n", n)
		}
		return err
	}
	lost, err := outbox.ListLost(ctx, c.pool)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "EVENT\tORDER\tSEQUENCE\tTYPE\tPARTITION\tOFFSET\tTIMELINE\tFOUND")
	for _, l := range lost {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%d\t%d\t%s\n", brief(l.ID), brief(l.Key), l.Sequence, brief(l.Type), l.Partition, l.Offset, l.Timeline,
			l.FoundAt.UTC().Format(time.RFC3339))
	}
	return w.Flush()
}

// publishedTail reads back what was published, for a relay whose database was promoted or recovered.
func publishedTail(log *broker.Client) outbox.Tail {
	return func(ctx context.Context, visit func([]outbox.Record) (bool, error)) error {
		return log.ReadBack(ctx, payment.Topic, func(page []inbox.Message) (bool, error) {
			records := make([]outbox.Record, len(page))
			for i, m := range page {
				sequence, _ := strconv.ParseInt(m.Headers["ce_sequence"], 10, 64) // 0 is none of ours
				records[i] = outbox.Record{
					ID: m.Headers[inbox.HeaderID], Key: string(m.Key), Sequence: sequence, Type: m.Headers["ce_type"],
					Partition: m.Partition, Offset: m.Offset,
				}
			}
			return visit(records)
		})
	}
}
