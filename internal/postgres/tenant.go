package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The policies of the schema (isolate_tenants) show a row when this setting names
// its merchant, or everybody. A session that sets nothing sees no tenant's row.
const (
	tenantSetting = "payments.merchant"
	everybody     = "*"
)

// tenancy of a context; its absence is everybody: the service's own work.
type tenancy struct {
	merchantID string
	// inStatement: whoever acquires a connection sets the tenant in the statements
	// that it sends, and the session can stay as it is.
	inStatement bool
}

type tenancyKey struct{}

// ForTenant bounds all that is read or written with the context to the rows of
// one merchant, whatever the statement says, on every pool that Open made; the
// empty id is none. It is the second wall: a query that forgot its scope finds
// nothing of others. It is none against SQL that an attacker writes.
func ForTenant(ctx context.Context, merchantID string) context.Context {
	if strings.Trim(merchantID, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		merchantID = "" // no id, and it is written into SQL below
	}
	return context.WithValue(ctx, tenancyKey{}, tenancy{merchantID: merchantID})
}

func (t tenancy) inStatements(ctx context.Context) context.Context {
	return context.WithValue(ctx, tenancyKey{}, tenancy{t.merchantID, true})
}

func tenancyOf(ctx context.Context) (t tenancy, bounded bool) {
	t, bounded = ctx.Value(tenancyKey{}).(tenancy)
	return t, bounded
}

// prepare gives the session the tenant of the context that acquires it. InTx and
// Query save that round trip; what does not go through them is bounded as well.
func prepare(ctx context.Context, conn *pgx.Conn) (bool, error) {
	want := everybody
	if t, bounded := tenancyOf(ctx); bounded && !t.inStatement {
		want = t.merchantID
	}
	state := conn.PgConn().CustomData()
	if have, set := state[tenantSetting]; have == want || !set && want == everybody {
		return true, nil
	}
	if _, err := conn.Exec(ctx, `SELECT set_config($1, $2, false)`, tenantSetting, want); err != nil {
		return false, fmt.Errorf("set the tenant: %w", err)
	}
	state[tenantSetting] = want
	return true, nil
}

// begin opens a transaction of the context's tenant, in one round trip.
func begin(ctx context.Context, on Beginner) (pgx.Tx, error) {
	t, bounded := tenancyOf(ctx)
	if !bounded {
		return on.Begin(ctx)
	}
	return on.BeginTx(t.inStatements(ctx), pgx.TxOptions{
		BeginQuery: "BEGIN; SELECT set_config('" + tenantSetting + "', '" + t.merchantID + "', true)",
	})
}

// Query is pool.Query. For a tenant it sends the setting ahead in the same
// pipeline, which is one implicit transaction up to its end.
func Query(ctx context.Context, pool *pgxpool.Pool, sql string, args ...any) (pgx.Rows, error) {
	t, bounded := tenancyOf(ctx)
	if !bounded {
		return pool.Query(ctx, sql, args...)
	}
	var b pgx.Batch
	b.Queue(`SELECT set_config($1, $2, true)`, tenantSetting, t.merchantID)
	b.Queue(sql, args...)
	return queryBehind(pool.SendBatch(t.inStatements(ctx), &b))
}

// QueryPlanned is Query for a statement whose plan depends on its arguments, which
// one merchant has three of and another three million: it is planned for them each
// time, and never for arguments in general.
func QueryPlanned(ctx context.Context, pool *pgxpool.Pool, sql string, args ...any) (pgx.Rows, error) {
	merchant := everybody
	t, bounded := tenancyOf(ctx)
	if bounded {
		merchant = t.merchantID
	}
	var b pgx.Batch
	b.Queue(`SELECT set_config($1, $2, true), set_config('plan_cache_mode', 'force_custom_plan', true)`, tenantSetting, merchant)
	b.Queue(sql, args...)
	return queryBehind(pool.SendBatch(t.inStatements(ctx), &b))
}

// queryBehind is the second of two statements in one pipeline.
func queryBehind(results pgx.BatchResults) (pgx.Rows, error) {
	if _, err := results.Exec(); err != nil {
		_ = results.Close() // tells the same
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	return &batchRows{Rows: rows, results: results}, nil
}

// batchRows gives the connection back with the rows.
type batchRows struct {
	pgx.Rows
	results pgx.BatchResults
	err     error
}

func (r *batchRows) Close() {
	r.Rows.Close()
	if err := r.results.Close(); r.err == nil {
		r.err = err
	}
}

// Err is also that of the pipeline's end, after Close.
func (r *batchRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}
