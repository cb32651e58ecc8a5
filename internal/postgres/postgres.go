package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	connectTimeout  = 2 * time.Second
	rollbackTimeout = 5 * time.Second
	maxConnections  = 24
	// The engine has few connections and its own: four commits, the claims, and what
	// gives sagas back. With the API's, hundreds of requests would wait before them.
	engineConnections = 8
)

// Open makes a pool whose sessions commit durably, keep UTC and give up waiting
// for a lock or a lost client instead of hanging. They see every tenant unless the
// context says otherwise (ForTenant). It does not connect yet: the
// service starts, and answers 503, while the database is away.
func Open(ctx context.Context, url string) (*pgxpool.Pool, error) {
	return open(ctx, url, maxConnections, nil, prepare)
}

func open(ctx context.Context, url string, connections int32, settings map[string]string,
	prepare func(context.Context, *pgx.Conn) (bool, error),
) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("is not a Postgres connection URL") // the parser's own error repeats the password
	}
	c.ConnConfig.ConnectTimeout = connectTimeout
	c.MaxConns = connections
	c.MaxConnIdleTime = time.Minute
	c.HealthCheckPeriod = 5 * time.Second
	maps.Copy(c.ConnConfig.RuntimeParams, sessionSettings())
	maps.Copy(c.ConnConfig.RuntimeParams, settings)
	c.BeforeConnect = settleSession
	c.PrepareConn = prepare
	return newPool(ctx, c)
}

// Beginner is a pool, or one of its connections.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// InTx runs fn in a READ COMMITTED transaction, of the context's tenant if it has
// one (ForTenant), and commits when fn returns nil.
// An error of the commit itself leaves open whether it took effect. The rollback
// survives a canceled context.
func InTx(ctx context.Context, on Beginner, fn func(tx pgx.Tx) error) (err error) {
	tx, err := begin(ctx, on)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		if rerr := tx.Rollback(rctx); rerr != nil && !errors.Is(rerr, pgx.ErrTxClosed) && err == nil {
			err = fmt.Errorf("rollback: %w", rerr)
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Constraint is the name of the constraint that err says was violated, or "".
func Constraint(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && strings.HasPrefix(pg.Code, "23") {
		return pg.ConstraintName
	}
	return ""
}

// DataError reports whether the values were at fault (SQLSTATE classes 22 and
// 23), so that trying again is of no use.
func DataError(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23"))
}

// TimedOut reports whether a statement ran into statement_timeout, or was
// canceled: also one that is Unavailable, which its own cost may be the cause of.
func TimedOut(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "57014"
}

// NotPopulated reports whether a materialized view has never been filled.
func NotPopulated(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "55000"
}

// Locked reports whether another transaction held a lock for longer than lock_timeout.
func Locked(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "55P03"
}
