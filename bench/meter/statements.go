package meter

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Calls are executions by statement, without BEGIN, COMMIT and ROLLBACK.
type Calls map[int64]int64

// Calls reads how often each statement was executed, by all roles but the superuser.
func (d *Database) Calls(ctx context.Context) (Calls, error) {
	rows, err := d.conn.Query(ctx, `
		SELECT queryid, sum(calls)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
		WHERE d.datname = current_database() AND s.userid <> 'postgres'::regrole AND query !~* '^\s*(begin|start|commit|rollback)'
		GROUP BY queryid`)
	if err != nil {
		return nil, err
	}
	calls := Calls{}
	var id, n int64
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { calls[id] = n; return nil })
	return calls, err
}

// Sub is what was executed since before.
func (c Calls) Sub(before Calls) Calls {
	since := Calls{}
	for id, n := range c {
		if n > before[id] {
			since[id] = n - before[id]
		}
	}
	return since
}

// Without the statements of other.
func (c Calls) Without(other Calls) Calls {
	rest := Calls{}
	for id, n := range c {
		if _, ok := other[id]; !ok {
			rest[id] = n
		}
	}
	return rest
}

// Sum of all executions.
func (c Calls) Sum() (sum int64) {
	for _, n := range c {
		sum += n
	}
	return sum
}

// Queries gives the text of the statements, for a person who asks what grew.
func (d *Database) Queries(ctx context.Context, calls Calls) (map[int64]string, error) {
	rows, err := d.conn.Query(ctx, `SELECT queryid, left(regexp_replace(query, '\s+', ' ', 'g'), 100) FROM pg_stat_statements`)
	if err != nil {
		return nil, err
	}
	texts := map[int64]string{}
	var id *int64
	var text string
	_, err = pgx.ForEachRow(rows, []any{&id, &text}, func() error {
		if id != nil && calls[*id] > 0 {
			texts[*id] = text
		}
		return nil
	})
	return texts, err
}

// Position of the end of the write-ahead log.
func (d *Database) Position(ctx context.Context) (lsn string, err error) {
	err = d.conn.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&lsn)
	return lsn, err
}

// Unfinished is how many sagas have not ended.
func (d *Database) Unfinished(ctx context.Context) (n int, err error) {
	err = d.conn.QueryRow(ctx, `SELECT count(*) FROM sagas WHERE state IN ('running', 'compensating')`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count unfinished sagas: %w", err)
	}
	return n, nil
}

// Events is how many the outbox has been given.
func (d *Database) Events(ctx context.Context) (n int64, err error) {
	err = d.conn.QueryRow(ctx, `SELECT count(*) FROM outbox`).Scan(&n)
	return n, err
}

// Exec runs SQL as the superuser, whose statements are not counted.
func (d *Database) Exec(ctx context.Context, sql string) error {
	_, err := d.conn.Exec(ctx, sql)
	return err
}
