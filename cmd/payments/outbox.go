package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/urfave/cli/v3"

	"payments/internal/broker"
	"payments/internal/config"
	"payments/internal/inbox"
	"payments/internal/outbox"
	"payments/internal/payment"
)

func (e environment) outboxCommand() *cli.Command {
	return &cli.Command{
		Name: "outbox", Usage: "show where the relays stand; repair that after a restore",
		Description: about("Works as the owner of the tables, by PAYMENTS_MIGRATE_DATABASE_URL.", "payments outbox status"),
		Commands: []*cli.Command{
			{
				Name: "status", Usage: "show the checkpoints, and which server each is of", Description: about("", "payments outbox status", "payments outbox status -output json"),
				Flags: shows(), Action: alone(e.withOutbox(e.outboxStatus)),
			},
			{
				Name: "reset", Usage: "make checkpoints of this server, after a restore",
				Description: about("What is not proven to be published is published again.", "payments outbox reset", "payments outbox reset -from 2026-11-30T12:00:00Z"),
				Flags:       shows(&cli.StringFlag{Name: "from", Usage: "publish again what was made at this `TIME` or later"}), Action: alone(e.withOutbox(e.outboxReset)),
			},
			{
				Name: "lost", Usage: "list published events that have no commit",
				Description: about("A failover to a standby that lacked the last commits leaves such events.", "payments outbox lost", "payments outbox lost -settle"),
				Flags:       shows(&cli.BoolFlag{Name: "settle", Usage: "say that what they told was dealt with"}), Action: alone(e.withOutbox(e.outboxLost)),
			},
		},
	}
}

// withOutbox opens the database as the tables' owner.
func (e environment) withOutbox(do func(context.Context, *cli.Command, *pgxpool.Pool) error) cli.ActionFunc {
	return func(ctx context.Context, c *cli.Command) error {
		if _, err := parseTime(c, "from"); err != nil {
			return err
		}
		m, err := config.LoadMigrate(e.lookup)
		if err != nil {
			return err
		}
		pool, err := openMigrated(ctx, "PAYMENTS_MIGRATE_DATABASE_URL", m.OwnerURL)
		if err != nil {
			return err
		}
		defer pool.Close()
		return do(ctx, c, pool)
	}
}

type outboxShown struct {
	Object            string        `json:"object"`
	SystemIdentifier  string        `json:"system_identifier"`
	Timeline          int32         `json:"timeline"`
	OldestUnpublished float64       `json:"oldest_unpublished_seconds"`
	Lost              int           `json:"lost"`
	Shards            []shardsShown `json:"shards"`
}

type shardsShown struct {
	Shard            int32   `json:"shard"`
	SystemIdentifier *string `json:"system_identifier"` // null: the checkpoint does not say
	Timeline         *int32  `json:"timeline"`
	Proven           bool    `json:"proven"`
}

func (e environment) outboxStatus(ctx context.Context, c *cli.Command, pool *pgxpool.Pool) error {
	here, shards, err := outbox.Checkpoints(ctx, pool)
	if err != nil {
		return err
	}
	oldest, err := outbox.OldestUnpublished(ctx, pool)
	if err != nil {
		return err
	}
	lost, err := outbox.ListLost(ctx, pool)
	if err != nil {
		return err
	}
	shown := outboxShown{"outbox", number(here.SystemIdentifier), here.Timeline, oldest.Seconds(), len(lost), []shardsShown{}}
	for _, s := range shards {
		row := shardsShown{Shard: s.Shard, Proven: s.Proven}
		if s.Server != nil {
			identifier := number(s.Server.SystemIdentifier)
			row.SystemIdentifier, row.Timeline = &identifier, &s.Server.Timeline
		}
		shown.Shards = append(shown.Shards, row)
	}
	return e.show(c, shown, func(w io.Writer) {
		fmt.Fprintf(w, "server      %d, timeline %d\nunpublished the oldest event is %s old\nlost        %d published events have no commit\n\n",
			here.SystemIdentifier, here.Timeline, oldest.Round(time.Millisecond), len(lost))
		t := newTable(w, "SHARD", "CHECKPOINT OF", "TIMELINE", "PROVEN")
		for _, s := range shown.Shards {
			identifier, timeline, proven := "unknown", "unknown", "yes"
			if s.SystemIdentifier != nil {
				identifier, timeline = *s.SystemIdentifier, number(*s.Timeline)
			}
			if !s.Proven {
				proven = "no: run `payments outbox reset`"
			}
			t.row(s.Shard, identifier, timeline, proven)
		}
		_ = t.Flush()
	})
}

type resetShown struct {
	Object           string     `json:"object"`
	SystemIdentifier string     `json:"system_identifier"`
	Timeline         int32      `json:"timeline"`
	From             *time.Time `json:"from"`
	Again            int64      `json:"published_again"`
	Kept             int64      `json:"proven"`
}

func (e environment) outboxReset(ctx context.Context, c *cli.Command, pool *pgxpool.Pool) error {
	from, err := parseTime(c, "from")
	if err != nil {
		return err
	}
	done, err := outbox.Reset(ctx, pool, from)
	if errors.Is(err, outbox.ErrNotOwner) {
		return usagef("PAYMENTS_MIGRATE_DATABASE_URL: %w", err)
	}
	if err != nil {
		return err
	}
	shown := resetShown{"outbox_reset", number(done.Server.SystemIdentifier), done.Server.Timeline, nil, done.Again, done.Kept}
	if !from.IsZero() {
		shown.From = &from
	}
	return e.show(c, shown, func(w io.Writer) {
		if done.Again+done.Kept > 0 || from.IsZero() {
			fmt.Fprintf(w, "The checkpoints are of server %d, timeline %d, now. %d events are published again, %d were proven to be published.\n",
				done.Server.SystemIdentifier, done.Server.Timeline, done.Again, done.Kept)
			return
		}
		fmt.Fprintf(w, "What was made since %s is published again.\n", text(from))
	})
}

type lostShown struct {
	Object    string    `json:"object"`
	EventID   string    `json:"event_id"`
	Order     string    `json:"order"`
	Sequence  int64     `json:"sequence"`
	Type      string    `json:"type"`
	Partition int       `json:"partition"`
	Offset    int64     `json:"offset"`
	Timeline  int32     `json:"timeline"`
	FoundAt   time.Time `json:"found_at"`
}

func (e environment) outboxLost(ctx context.Context, c *cli.Command, pool *pgxpool.Pool) error {
	if c.Bool("settle") {
		n, err := outbox.SettleLost(ctx, pool)
		if err != nil {
			return err
		}
		return e.show(c, map[string]any{"object": "outbox_lost_settled", "settled": n}, func(w io.Writer) { fmt.Fprintf(w, "%d lost events are settled.\n", n) })
	}
	lost, err := outbox.ListLost(ctx, pool)
	if err != nil {
		return err
	}
	all := listOf[lostShown](nil)
	for _, l := range lost {
		all.Data = append(all.Data, lostShown{"outbox_lost", l.ID, l.Key, l.Sequence, l.Type, l.Partition, l.Offset, l.Timeline, l.FoundAt.UTC()})
	}
	return e.show(c, all, func(w io.Writer) {
		t := newTable(w, "EVENT", "ORDER", "SEQUENCE", "TYPE", "PARTITION", "OFFSET", "TIMELINE", "FOUND")
		for _, l := range all.Data {
			t.row(l.EventID, l.Order, l.Sequence, l.Type, l.Partition, l.Offset, l.Timeline, l.FoundAt)
		}
		_ = t.Flush()
	})
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
