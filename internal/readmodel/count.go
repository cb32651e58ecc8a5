package readmodel

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/postgres"
	"payments/internal/readmodel/term"
)

// Count is how many payments a list has. At most one of Exact and AtLeast is set; with neither,
// Value is the planner's estimate.
type Count struct {
	Value   int64
	Exact   bool
	AtLeast bool // there are more than Value
}

const (
	// exactRows are counted one by one: an index gives that many in a few milliseconds.
	exactRows = 1000
	// exactCost in the planner's units, of what has to be read for them.
	exactCost = 20_000
	// ownRows bounds the exact count of a merchant's own payments.
	ownRows = 10_000
)

// Count never estimates for a merchant: the planner's statistics are of every merchant's rows,
// whatever row-level security says, so an estimate would tell what others have. A merchant's own
// payments are counted up to ownRows. For a caller who sees every merchant the planner is asked
// first, and only what it takes for little is counted.
func (q *Queries) Count(ctx context.Context, scope access.Scope, f Filter) (Count, error) {
	if _, all := scope.Merchant(); !all {
		n, err := q.count(ctx, scope, f, ownRows)
		return Count{Value: min(n, ownRows), Exact: n <= ownRows, AtLeast: n > ownRows}, err
	}
	rows, cost, err := q.estimate(ctx, scope, f)
	if err != nil {
		return Count{}, err
	}
	if rows > exactRows || cost > exactCost {
		return Count{Value: int64(rows)}, nil
	}
	n, err := q.count(ctx, scope, f, exactRows)
	return Count{Value: n, Exact: n <= exactRows}, err
}

// count stops one past limit.
func (q *Queries) count(ctx context.Context, scope access.Scope, f Filter, limit int64) (int64, error) {
	var s statement
	sql := "SELECT count(*) FROM (" + s.matching(scope, f) + " LIMIT " + s.arg(limit+1) + ") l"
	counted, err := postgres.QueryPlanned(ctx, q.pool, sql, s.args...)
	if err != nil {
		return 0, fmt.Errorf("count payments: %w", err)
	}
	n, err := pgx.CollectOneRow(counted, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("count payments: %w", err)
	}
	return n, nil
}

func (q *Queries) estimate(ctx context.Context, scope access.Scope, f Filter) (rows, cost float64, err error) {
	s := statement{estimated: true}
	sql := s.matching(scope, f)
	explained, err := postgres.QueryPlanned(ctx, q.pool, "EXPLAIN (FORMAT JSON) "+sql, s.args...)
	if err != nil {
		return 0, 0, fmt.Errorf("estimate payments: %w", err)
	}
	text, err := pgx.CollectOneRow(explained, pgx.RowTo[string])
	if err != nil {
		return 0, 0, fmt.Errorf("estimate payments: %w", err)
	}
	var plans []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
			Cost float64 `json:"Total Cost"`
		}
	}
	if err := json.Unmarshal([]byte(text), &plans); err != nil || len(plans) != 1 {
		return 0, 0, fmt.Errorf("estimate payments: %d plans: %w", len(plans), err)
	}
	return plans[0].Plan.Rows, plans[0].Plan.Cost, nil
}

// matching names each payment of the list once.
func (s *statement) matching(scope access.Scope, f Filter) string {
	merchant, all := s.merchant(scope, f)
	if all {
		merchant = "true"
	}
	where := merchant + s.conditions(f)
	if len(f.Statuses) > 0 {
		where += " AND v.status = ANY (" + s.arg(statusTexts(f.Statuses)) + "::text[])"
	}
	if f.Search == "" {
		return "SELECT FROM payment_view v WHERE " + where
	}
	from, to := term.Range(f.Search)
	return "SELECT DISTINCT t.payment_id FROM payment_term t JOIN payment_view v ON v.merchant_id = t.merchant_id AND v.payment_id = t.payment_id WHERE " +
		where + " AND t.term >= " + s.arg(from) + " AND t.term < " + s.arg(to)
}
