package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Unfinished counts the sagas that are due or in a worker's hand, of every process. Those
// that wait for a time, a merchant or an operator do not count.
type Unfinished struct {
	pool *pgxpool.Pool
	held []string
	// No saga that is due or in hand has an older key, so that a count does not read the
	// entries of ended sagas.
	floor time.Time
}

// NewUnfinished is for sagas of the definitions; the pool is of postgres.OpenEngine. Its Count is for one goroutine at a time.
func NewUnfinished(pool *pgxpool.Pool, definitions ...Definition) *Unfinished {
	u := &Unfinished{pool: pool}
	for _, d := range definitions {
		u.held = append(u.held, d.key())
	}
	return u
}

// unfinishedMargin is how late a saga may be counted after it became due.
const unfinishedMargin = 2 * time.Second

// Count stops counting at most, so that it reads a bounded number of pages. oldest is how
// long the saga has waited that no worker has begun.
func (u *Unfinished) Count(ctx context.Context, most int) (count int, oldest time.Duration, err error) {
	var seconds float64
	err = u.pool.QueryRow(ctx, `
		WITH unfinished AS MATERIALIZED (
			SELECT claim_at, owner IS NULL AS waits, begun FROM (VALUES (false), (true)) AS q (begun_is), LATERAL (
				SELECT claim_at, owner, begun FROM sagas
				WHERE begun = q.begun_is AND claim_at >= $1 AND claim_at <= now() AND definition || ' ' || version = ANY ($2::text[])
				ORDER BY claim_at LIMIT $3) s)
		SELECT count(*), coalesce(extract(epoch FROM now() - min(claim_at) FILTER (WHERE waits AND NOT begun)), 0)::float8,
			least(min(claim_at), now() - $4::interval)
		FROM unfinished`, u.floor, u.held, most, unfinishedMargin).Scan(&count, &seconds, &u.floor)
	if err != nil {
		return 0, 0, fmt.Errorf("count unfinished sagas: %w", err)
	}
	return min(count, most), time.Duration(max(seconds, 0) * float64(time.Second)), nil
}
