package outbox_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

// What one idle turn costs, as docs/decisions/outbox-reading.md compares it: each process taking
// its own snapshot, against a ticker that stores one for all (PgQ) and notifies.
func BenchmarkReading(b *testing.B) {
	db := devtest.Database(b)
	owner, err := postgres.Open(b.Context(), db.OwnerURL)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(owner.Close)
	if _, err := owner.Exec(b.Context(), `
		CREATE TABLE ticks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, snapshot pg_snapshot NOT NULL,
			last bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())`); err != nil {
		b.Fatal(err)
	}
	run := func(name string, turn func(c *pgxpool.Conn) error) {
		b.Run(name, func(b *testing.B) {
			c, err := owner.Acquire(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Release()
			for b.Loop() {
				if err := turn(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("own-snapshot", func(c *pgxpool.Conn) error {
		var snapshot string
		var last int64
		return c.QueryRow(b.Context(), `
			SELECT pg_current_snapshot()::text, coalesce(pg_sequence_last_value('outbox_position'), 0)`).Scan(&snapshot, &last)
	})
	run("tick-written", func(c *pgxpool.Conn) error {
		return pgx.BeginFunc(b.Context(), c, func(tx pgx.Tx) error {
			_, err := tx.Exec(b.Context(), `
				WITH off AS (SELECT set_config('synchronous_commit', 'off', true)), tick AS (
					INSERT INTO ticks (snapshot, last)
					SELECT pg_current_snapshot(), coalesce(pg_sequence_last_value('outbox_position'), 0) FROM off RETURNING id)
				SELECT pg_notify('tick', id::text) FROM tick`)
			return err
		})
	})
	run("tick-read", func(c *pgxpool.Conn) error {
		var snapshot string
		return c.QueryRow(b.Context(), `SELECT snapshot::text FROM ticks ORDER BY id DESC LIMIT 1`).Scan(&snapshot)
	})
}
