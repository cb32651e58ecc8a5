package meter

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Settings that Postgres needs so that Database can count.
func Settings() []string {
	return []string{
		"shared_preload_libraries=pg_stat_statements",
		"pg_stat_statements.max=10000",
		"pg_stat_statements.track=top",
		"pg_stat_statements.track_utility=on", // BEGIN and COMMIT are statements
		"wal_keep_size=8GB",                   // commits are counted in the log after the run
		"track_io_timing=off",
	}
}

// Database counts what the roles of one database do. It connects as the superuser, and whatever the
// superuser does is not counted.
type Database struct {
	conn *pgx.Conn
}

// OpenDatabase makes the extensions that counting needs. The URL is the superuser's.
func OpenDatabase(ctx context.Context, url string) (*Database, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements; CREATE EXTENSION IF NOT EXISTS pg_walinspect`)
	if err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("make the extensions that count (Postgres' contrib package has them): %w", err)
	}
	return &Database{conn}, nil
}

// Close ends the connection.
func (d *Database) Close(ctx context.Context) error { return d.conn.Close(ctx) }

// Counts are cumulative; their differences are what a run did.
type Counts struct {
	LSN        string `json:"-"`
	WAL        int64  // bytes
	WALSyncs   int64
	Statements int64 // executions, those of BEGIN and COMMIT included
	Control    int64 // of them, BEGIN, COMMIT and ROLLBACK
	Inserted   int64 // rows
	Updated    int64
	HotUpdated int64 // of Updated
	Deleted    int64
	Dead       int64 // tuples that no vacuum has removed yet
	Size       int64 // bytes of the database on disk
	Outbox     int64 // of them, the outbox, which its retention drops
}

// Counts reads the statistics. Backends report theirs once a second, so differences over a short
// time are a little off.
func (d *Database) Counts(ctx context.Context) (c Counts, err error) {
	err = d.conn.QueryRow(ctx, `
		SELECT pg_current_wal_flush_lsn()::text, pg_current_wal_insert_lsn() - '0/0'::pg_lsn, wal_sync FROM pg_stat_wal`).
		Scan(&c.LSN, &c.WAL, &c.WALSyncs)
	if err != nil {
		return c, err
	}
	err = d.conn.QueryRow(ctx, `
		SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(calls) FILTER (WHERE query ~* '^\s*(begin|start|commit|rollback)'), 0)::bigint
		FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
		WHERE d.datname = current_database() AND s.userid <> 'postgres'::regrole`).Scan(&c.Statements, &c.Control)
	if err != nil {
		return c, err
	}
	err = d.conn.QueryRow(ctx, `
		SELECT coalesce(sum(n_tup_ins), 0)::bigint, coalesce(sum(n_tup_upd), 0)::bigint, coalesce(sum(n_tup_hot_upd), 0)::bigint,
			coalesce(sum(n_tup_del), 0)::bigint, coalesce(sum(n_dead_tup), 0)::bigint, pg_database_size(current_database()),
			coalesce(sum(pg_total_relation_size(relid)) FILTER (WHERE relname ~ '^outbox'), 0)::bigint
		FROM pg_stat_user_tables`).
		Scan(&c.Inserted, &c.Updated, &c.HotUpdated, &c.Deleted, &c.Dead, &c.Size, &c.Outbox)
	return c, err
}

// Sub is what was done since before.
func (c Counts) Sub(before Counts) Counts {
	return Counts{
		WAL: c.WAL - before.WAL, WALSyncs: c.WALSyncs - before.WALSyncs,
		Statements: c.Statements - before.Statements, Control: c.Control - before.Control,
		Inserted: c.Inserted - before.Inserted, Updated: c.Updated - before.Updated, HotUpdated: c.HotUpdated - before.HotUpdated,
		Deleted: c.Deleted - before.Deleted, Dead: c.Dead - before.Dead, Size: c.Size - before.Size, Outbox: c.Outbox - before.Outbox,
	}
}

// Log is what the write-ahead log holds between two positions.
type Log struct {
	Commits  int64 // of transactions that wrote, each of them durable when it is answered
	Inserted int64 // rows, those of the toast tables included
	Updated  int64
	Deleted  int64
	Records  int64 // bytes without the images of whole pages, whose number depends on checkpoints
}

// ReadLog reads the log between two positions, for instance two values of Counts.LSN.
func (d *Database) ReadLog(ctx context.Context, from, to string) (l Log, err error) {
	if from == to {
		return l, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	err = d.conn.QueryRow(ctx, `
		SELECT coalesce(sum(count) FILTER (WHERE type LIKE 'Transaction/COMMIT%'), 0)::bigint,
			coalesce(sum(count) FILTER (WHERE type LIKE 'Heap/INSERT%'), 0)::bigint,
			coalesce(sum(count) FILTER (WHERE type LIKE 'Heap/UPDATE%' OR type LIKE 'Heap/HOT_UPDATE%'), 0)::bigint,
			coalesce(sum(count) FILTER (WHERE type LIKE 'Heap/DELETE%'), 0)::bigint,
			coalesce(sum(record_size), 0)::bigint
		FROM pg_get_wal_stats($1::pg_lsn, $2::pg_lsn, true) AS s (type, count, count_percentage, record_size)`, from, to).
		Scan(&l.Commits, &l.Inserted, &l.Updated, &l.Deleted, &l.Records)
	if err != nil {
		return l, fmt.Errorf("read the write-ahead log from %s to %s: %w", from, to, err)
	}
	return l, nil
}
