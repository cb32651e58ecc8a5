package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Server is a database server as its log names it: a dump that is restored elsewhere comes to
// another identifier; a promotion, and a recovery to a moment ago, raise the timeline.
type Server struct {
	SystemIdentifier int64
	Timeline         int32
}

// ErrOtherServer: the checkpoints prove nothing on this server, since the transactions that
// they name are another's. Reset makes new ones.
var ErrOtherServer = errors.New("run `payments outbox reset`")

// Checkpoint is one shard's last checkpoint, with the server that wrote it.
type Checkpoint struct {
	Shard  int32
	Server *Server // that wrote the checkpoint; nil if it does not say
	// Proven says that the checkpoint is of the server that was asked. Otherwise nothing
	// counts as published. A shard without a checkpoint is proven: it has published nothing.
	Proven bool
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Checkpoints returns each shard's last checkpoint, and the server that was asked.
func Checkpoints(ctx context.Context, pool *pgxpool.Pool) (Server, []Checkpoint, error) {
	return readCheckpoints(ctx, pool)
}

func readCheckpoints(ctx context.Context, db querier) (here Server, all []Checkpoint, err error) {
	if here, err = readServer(ctx, db); err != nil {
		return here, nil, err
	}
	rows, err := db.Query(ctx, `
		SELECT shard, n IS NULL OR done IS NOT NULL, system_identifier, timeline FROM outbox_cursors ORDER BY shard`)
	if err != nil {
		return here, nil, fmt.Errorf("read the shards' checkpoints: %w", err)
	}
	all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Checkpoint, err error) {
		var identifier *int64
		var timeline *int32
		err = row.Scan(&s.Shard, &s.Proven, &identifier, &timeline)
		if identifier != nil && timeline != nil {
			s.Server = &Server{*identifier, *timeline}
		}
		return s, err
	})
	if err != nil {
		return here, nil, fmt.Errorf("read the shards' checkpoints: %w", err)
	}
	return here, all, nil
}

func readServer(ctx context.Context, db querier) (s Server, err error) {
	var timeline *int32
	if err := db.QueryRow(ctx, `SELECT system_identifier, timeline FROM server_identity()`).Scan(&s.SystemIdentifier, &timeline); err != nil {
		return s, fmt.Errorf("ask the server who it is: %w", err)
	}
	if timeline == nil {
		return s, errors.New("the server is a standby")
	}
	s.Timeline = *timeline
	return s, nil
}

// recognize compares the server with the one that made the checkpoints.
//
// The relay stops on another server, and on one that has not given out the transactions that a
// checkpoint or a message names: what it would take for published may never have been.
//
// A promotion and a recovery raise the timeline. The checkpoints are then as true as the messages
// beside them, but the broker may have messages of commits that are gone. Those are looked for
// (lookForLost), and the relay goes on.
func (r *Relay) recognize(ctx context.Context) error {
	here, all, err := readCheckpoints(ctx, r.conn)
	if err != nil {
		return err
	}
	r.server, r.promoted = here, false
	for _, s := range all {
		switch {
		case s.Server != nil && s.Server.SystemIdentifier != here.SystemIdentifier:
			return r.refuse("the checkpoint of shard %d is of the database server %d and this one is %d, so that it does not prove what was published",
				s.Shard, s.Server.SystemIdentifier, here.SystemIdentifier)
		case !s.Proven:
			return r.refuse("the checkpoint of shard %d names transactions that this database server has not given out yet, so that it does not prove what was published", s.Shard)
		case s.Server != nil && s.Server.Timeline > here.Timeline:
			return r.refuse("the checkpoint of shard %d is of timeline %d and this database server is on timeline %d, which is older",
				s.Shard, s.Server.Timeline, here.Timeline)
		}
		r.promoted = r.promoted || s.Server != nil && s.Server.Timeline < here.Timeline
	}
	ahead, err := messagesAhead(ctx, r.conn)
	if err != nil {
		return err
	}
	if ahead {
		return r.refuse("messages name transactions that this database server has not given out yet, so that no checkpoint would prove what was published")
	}
	r.metrics.unproven.WithLabelValues().Set(0)
	return nil
}

// messagesAhead reports whether messages name transactions that the server has not given out,
// by the index outbox_xid.
func messagesAhead(ctx context.Context, db querier) (ahead bool, err error) {
	if err := db.QueryRow(ctx, `SELECT EXISTS (SELECT FROM outbox WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))`).Scan(&ahead); err != nil {
		return false, fmt.Errorf("look for messages of another server: %w", err)
	}
	return ahead, nil
}

// lookForLost comes after a promotion, before anything is published.
func (r *Relay) lookForLost(ctx context.Context) error {
	if !r.promoted || r.Tail == nil {
		return nil
	}
	here := r.server
	r.Log.WarnContext(ctx, "the database server was promoted or recovered, looking for published messages whose commits are lost", "timeline", here.Timeline)
	found, err := findLost(ctx, r.conn, here, r.Tail)
	if err != nil {
		return fmt.Errorf("look for published messages whose commits are lost: %w", err)
	}
	if found > 0 {
		r.Log.ErrorContext(ctx, "published messages are not in the outbox: their commits were lost (see `payments outbox lost`)", "messages", found, "timeline", here.Timeline)
	}
	r.promoted = false
	return nil
}

func (r *Relay) refuse(format string, args ...any) error {
	r.metrics.unproven.WithLabelValues().Set(1)
	return fmt.Errorf("the relay stops: "+format+": %w", append(args, ErrOtherServer)...)
}
