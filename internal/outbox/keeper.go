package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// checkpointSize and checkpointAge are for the partitions of checkpoints, of which
// each shard's last one counts alone.
const (
	checkpointSize = 1_000_000
	checkpointAge  = time.Hour
)

// KeeperConfig needs a Registerer and a Log.
type KeeperConfig struct {
	// Size of a partition in messages. Default 1,000,000.
	Size int64
	// Ahead is how many empty partitions stand ready. Together they have to last for as
	// long as every keeper may be away, and as long as a transaction may be open: one that
	// has appended does not see partitions that are made after that. Default 2.
	Ahead int
	// Retention is how long a full partition is kept at least. Default 7 days.
	Retention  time.Duration
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Keeper makes partitions ahead of the writers and drops those that every shard
// has passed. Any number of keepers may run: a process that writes should have one,
// so that who fills partitions also makes them.
type Keeper struct {
	KeeperConfig
	pool    *pgxpool.Pool
	left    *prometheus.GaugeVec // without labels: it has no series before it is measured
	dropped *prometheus.CounterVec
	overdue *prometheus.GaugeVec
}

// NewKeeper registers payments_outbox_positions_left,
// payments_outbox_partitions_dropped_total and payments_outbox_retention_overdue_seconds.
func NewKeeper(pool *pgxpool.Pool, c KeeperConfig) (*Keeper, error) {
	if pool == nil || c.Registerer == nil || c.Log == nil {
		return nil, errors.New("a keeper needs a pool, a registerer and a logger")
	}
	if c.Size < 0 || c.Ahead < 0 || c.Retention < 0 {
		return nil, errors.New("a keeper's size, number ahead and retention cannot be negative")
	}
	if c.Size == 0 {
		c.Size = 1_000_000
	}
	if c.Ahead == 0 {
		c.Ahead = 2
	}
	if c.Retention == 0 {
		c.Retention = 7 * 24 * time.Hour
	}
	k := &Keeper{
		KeeperConfig: c, pool: pool,
		left: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_outbox_positions_left", Help: "Messages that the partitions have room for; without room no payment is accepted.",
		}, nil),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_outbox_partitions_dropped_total", Help: "Partitions that were dropped, by their table.",
		}, []string{"table"}),
		overdue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_outbox_retention_overdue_seconds",
			Help: "How long the oldest partition has been kept past its retention, by what holds it: transaction, shard, gap or lock.",
		}, []string{"table", "held_by"}),
	}
	for _, metric := range []prometheus.Collector{k.left, k.dropped, k.overdue} {
		if err := c.Registerer.Register(metric); err != nil {
			return nil, fmt.Errorf("register the outbox's keeper: %w", err)
		}
	}
	return k, nil
}

// RunOnce takes one step; again means that the next can be taken at once.
func (k *Keeper) RunOnce(ctx context.Context) (again bool, err error) {
	for _, table := range []struct {
		name string
		size int64
		age  time.Duration
	}{
		{"outbox", k.Size, k.Retention}, {"outbox_checkpoints", checkpointSize, checkpointAge},
	} {
		var left int64
		if err := k.pool.QueryRow(ctx, `SELECT outbox_extend($1, $2, $3)`, table.name, table.size, k.Ahead).Scan(&left); err != nil {
			return false, fmt.Errorf("make partitions of %s: %w", table.name, err)
		}
		if table.name == "outbox" {
			k.left.WithLabelValues().Set(float64(left))
		}
		more, err := k.retire(ctx, table.name, table.age)
		if err != nil {
			return false, err
		}
		again = again || more
	}
	return again, nil
}

func (k *Keeper) retire(ctx context.Context, table string, age time.Duration) (again bool, err error) {
	var state string
	var overdue time.Duration
	err = pgx.BeginFunc(ctx, k.pool, func(tx pgx.Tx) error {
		// Sealing reads a whole partition, once; what it locks, its function bounds.
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT state, overdue FROM outbox_retire($1, $2::interval)`, table, age).Scan(&state, &overdue)
	})
	if err != nil {
		return false, fmt.Errorf("retire a partition of %s: %w", table, err)
	}
	for _, held := range []string{"transaction", "shard", "gap", "lock"} {
		seconds := 0.0
		if held == state {
			seconds = overdue.Seconds()
		}
		k.overdue.WithLabelValues(table, held).Set(seconds)
	}
	switch state {
	case "gap":
		k.Log.ErrorContext(ctx, "a partition is kept since a key's messages in it have a gap", "table", table)
	case "dropped":
		k.dropped.WithLabelValues(table).Inc()
		k.Log.InfoContext(ctx, "partition dropped", "table", table, "overdue", overdue)
	}
	return state == "sealed" || state == "dropped", nil
}
