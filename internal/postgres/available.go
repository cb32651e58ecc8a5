package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	sqlstateReadOnly        = "25006"
	sqlstateStoodStill      = "25P03" // the process stood still in the middle of a transaction
	sqlstateSerialization   = "40001"
	sqlstateDeadlock        = "40P01"
	sqlstateLock            = "55P03"
	sqlstateAdminShutdown   = "57P01"
	sqlstateCrashShutdown   = "57P02"
	sqlstateCannotConnect   = "57P03"
	sqlstateDatabaseDropped = "57P04"
)

// Unavailable reports whether the database could not be reached, was shutting
// down or starting, is read-only (a standby, or the old primary after a failover), had an
// error of its files, had no connection or lock to give in time, or chose this
// transaction as a deadlock's victim: the same request may succeed later.
func Unavailable(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code[:2] {
		case "08", "53", "57", "58": // connection, resources, operator intervention, files
			return true
		}
		switch pg.Code {
		case sqlstateReadOnly, sqlstateStoodStill, sqlstateSerialization, sqlstateDeadlock, sqlstateLock:
			return true
		}
		return errors.Is(err, pgconn.ErrReadOnlyConnection)
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) || errors.Is(err, pgconn.ErrReadOnlyConnection) ||
		err != nil && strings.Contains(err.Error(), "conn closed")
}

// leftBehind reports whether the server says that it is no primary, or not for much longer.
func leftBehind(err *pgconn.PgError) bool {
	switch err.Code {
	case sqlstateReadOnly, sqlstateAdminShutdown, sqlstateCrashShutdown, sqlstateCannotConnect, sqlstateDatabaseDropped:
		return true
	}
	return false
}

// newPool makes a pool that keeps no connection to a server that takes no writes. A server
// that says so after a failover loses all of the pool's connections, not the one that
// asked alone, and each new connection is checked before it is used. A URL with
// target_session_attrs says itself what its connections are checked for; "any" is for a
// process that only reads.
func newPool(ctx context.Context, c *pgxpool.Config) (*pgxpool.Pool, error) {
	var made atomic.Pointer[pgxpool.Pool]
	reset := func() {
		if pool := made.Load(); pool != nil {
			pool.Reset()
		}
	}
	c.ConnConfig.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool {
		if !leftBehind(err) {
			return !strings.EqualFold(err.Severity, "FATAL") // as pgconn does
		}
		reset()
		return false
	}
	if !strings.Contains(c.ConnString(), "target_session_attrs") {
		c.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
		prepare := c.PrepareConn
		c.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
			// The server tells its sessions when it changes, also those that only read and would
			// read old rows for ever.
			if conn.PgConn().ParameterStatus("default_transaction_read_only") == "on" {
				reset()
				return false, nil
			}
			return prepare(ctx, conn)
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	made.Store(pool)
	return pool, err
}

// Ready is an error unless the database answers and takes writes.
func Ready(ctx context.Context, pool *pgxpool.Pool) error {
	var readOnly bool
	if err := pool.QueryRow(ctx, `SELECT current_setting('transaction_read_only')::bool`).Scan(&readOnly); err != nil {
		return fmt.Errorf("ask the database whether it takes writes: %w", err)
	}
	if readOnly {
		pool.Reset()
		return fmt.Errorf("the database takes no writes: %w", pgconn.ErrReadOnlyConnection)
	}
	return nil
}
