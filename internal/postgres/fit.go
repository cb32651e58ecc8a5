package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	encoding = "UTF8"
	// checkTimeout bounds CheckSessions.
	checkTimeout = 10 * time.Second
)

// ErrEncoding means that the database cannot hold every text, or does not check it.
var ErrEncoding = errors.New("make it anew WITH ENCODING 'UTF8' TEMPLATE template0")

// errPooled means that a pooler gives the session's connection to others between two transactions.
var errPooled = errors.New("a pooler between does not keep the session: set PgBouncer's pool_mode to session (docs/operations/pooler.md)")

// fit checks what every session of the database has in common. The settings were made
// before: what is missing here, a pooler has lost or the server has overridden.
func fit(ctx context.Context, conn *pgx.Conn) error {
	if err := encoded(conn.PgConn()); err != nil {
		return err
	}
	var tenant, client, commit string
	if err := conn.QueryRow(ctx, `SELECT current_setting($1), current_setting('client_encoding'), current_setting('synchronous_commit')`,
		tenantSetting).Scan(&tenant, &client, &commit); err != nil {
		return fmt.Errorf("read the session's settings: %w", err)
	}
	if tenant != everybody || client != encoding || commit != "on" {
		return errPooled
	}
	return nil
}

// encoded refuses a database whose text is not UTF-8. LATIN1 has no emoji; SQL_ASCII takes
// any bytes, and counts and compares them as such.
func encoded(conn *pgconn.PgConn) error {
	if have := conn.ParameterStatus("server_encoding"); have != encoding {
		return fmt.Errorf("the database is encoded in %s and has to be in %s: %w", have, encoding, ErrEncoding)
	}
	return nil
}

// CheckSessions refuses, in one sentence, a database that is not in UTF-8, and a pooler that
// does not keep sessions: their settings, locks and prepared statements would be those of
// others. A database that is away is Unavailable.
func CheckSessions(ctx context.Context, url string) error {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("is not a Postgres connection URL") // the parser's own error repeats the password
	}
	return checkSessions(ctx, c)
}

func checkSessions(ctx context.Context, c *pgx.ConnConfig) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	first, err := connect(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = first.Close(context.WithoutCancel(ctx)) }()
	if err := encoded(first.PgConn()); err != nil {
		return err
	}
	second, err := connect(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = second.Close(context.WithoutCancel(ctx)) }()
	return kept(ctx, first.PgConn(), second.PgConn())
}

func connect(ctx context.Context, c *pgx.ConnConfig) (*pgx.Conn, error) {
	c = c.Copy()
	c.ConnectTimeout, c.RuntimeParams = connectTimeout, sessionSettings()
	if err := settleSession(ctx, c); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, c)
}

// kept fails when the first session's server is given to the second one, or another one to
// the first, while the second holds a transaction open.
func kept(ctx context.Context, first, second *pgconn.PgConn) (err error) {
	own, err := server(ctx, first)
	if err != nil {
		return err
	}
	if _, err := second.Exec(ctx, `BEGIN`).ReadAll(); err != nil {
		return refusal(err)
	}
	defer func() {
		if _, rerr := second.Exec(ctx, `ROLLBACK`).ReadAll(); err == nil {
			err = rerr
		}
	}()
	theirs, err := server(ctx, second)
	if err != nil {
		return err
	}
	if theirs == own {
		return errPooled
	}
	for range 3 {
		again, err := server(ctx, first)
		if err != nil {
			return err
		}
		if again != own {
			return errPooled
		}
	}
	return nil
}

// server is the process that serves the session, with its tenant setting, which must be ours.
func server(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	results, err := conn.Exec(ctx, `SELECT pg_backend_pid(), current_setting('`+tenantSetting+`', true)`).ReadAll()
	if err != nil {
		return "", refusal(err)
	}
	row := results[0].Rows[0]
	if string(row[1]) != everybody {
		return "", errPooled
	}
	return string(row[0]), nil
}

// refusal tells a pooler that allows no transaction (pool_mode=statement) from a database
// that is away: PgBouncer says so by a violation of the protocol.
func refusal(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "08P01" {
		return fmt.Errorf("%w: %s", errPooled, pg.Message)
	}
	return err
}
