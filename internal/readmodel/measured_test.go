package readmodel

import (
	"context"
	"errors"
	"flag"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/postgres"
)

var (
	measuredSizes     = flag.String("queries-sizes", "", "numbers of payments, by comma, that TestQueriesMeasured seeds and asks; none skips it")
	measuredDatabases = flag.String("queries-databases", "", "URLs of seeded databases, by comma, in the place of seeding")
)

// The same lists from the tables that are written, as one would without a read model.
const joined = `
	SELECT p.merchant_id, p.id, o.id, o.sequence, p.status, p.amount, p.amount_captured, p.amount_refunded, p.currency, p.payment_method, p.capture_method,
		o.customer_reference, o.reference, l.lines, p.failure_code, o.created_at, o.updated_at
	FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id, LATERAL (
		SELECT jsonb_agg(jsonb_build_object('sku', sku, 'quantity', quantity, 'unit_amount', unit_amount) ORDER BY line) AS lines
		FROM order_lines l WHERE l.merchant_id = o.merchant_id AND l.order_id = o.id) l
	WHERE p.merchant_id = $1 AND p.id < $2 `

const joinedPage = ` ORDER BY p.id DESC LIMIT 21`

func joining(name, condition string, args func(p Payment) []any) asked {
	return asked{name: "joined: " + name, ask: func(ctx context.Context, q *Queries, _ access.Scope, p Payment) error {
		rows, err := postgres.QueryPlanned(ctx, q.pool, joined+condition+joinedPage, args(p)...)
		if err != nil {
			return err
		}
		for rows.Next() { //nolint:forbidigo // what is measured is the reading alone
		}
		rows.Close()
		return rows.Err()
	}}
}

const lastID = "pay_7zzzzzzzzzzzzzzzzzzzzzzzzz"

func joinedQuestions() []asked {
	return []asked{
		joining("first page", "", func(p Payment) []any { return []any{p.MerchantID, lastID} }),
		joining("deep page", "", func(p Payment) []any { return []any{p.MerchantID, p.ID} }),
		joining("status, deep", "AND p.status = 'failed'", func(p Payment) []any { return []any{p.MerchantID, p.ID} }),
		joining("customer", "AND o.customer_reference = $3", func(p Payment) []any { return []any{p.MerchantID, lastID, p.CustomerReference} }),
		joining("search, beginning", "AND (o.reference ILIKE $3 OR o.customer_reference ILIKE $3)", func(p Payment) []any {
			return []any{p.MerchantID, lastID, p.OrderReference[:len(p.OrderReference)-1] + "%"}
		}),
	}
}

// TestQueriesMeasured asks each question of payments by chance, most of them of the
// largest merchants, one after the other, and prints what half and 99 of a hundred took:
//
//	go test ./internal/readmodel -run TestQueriesMeasured -v -timeout 120m -queries-sizes=100000,10000000
//
// The first round, of other payments, is not counted. What came of it is in
// docs/queries.md.
func TestQueriesMeasured(t *testing.T) {
	var pools []*pgxpool.Pool
	var names []string
	for url := range strings.SplitSeq(*measuredDatabases, ",") {
		if url == "" {
			continue
		}
		pool, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		pools = append(pools, pool)
	}
	for size := range strings.SplitSeq(*measuredSizes, ",") {
		if n, err := strconv.Atoi(size); err == nil && n > 0 {
			begun := time.Now()
			pools = append(pools, seeded(t, n))
			t.Logf("%d payments seeded in %s", n, time.Since(begun).Round(time.Second))
		}
	}
	if len(pools) == 0 {
		t.Skip("neither -queries-sizes nor -queries-databases is given")
	}
	samples := make([][]Payment, len(pools))
	for i, pool := range pools {
		var n float64
		if err := pool.QueryRow(t.Context(), `SELECT reltuples FROM pg_class WHERE oid = 'payment_view'::regclass`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		names = append(names, strconv.Itoa(int(n)))
		samples[i] = sample(t, pool, 3000)
	}
	t.Logf("payments: %s; p50 and p99 in milliseconds", strings.Join(names, " and "))
	for _, a := range slices.Concat(questions(), joinedQuestions()) {
		line := ""
		for i, pool := range pools {
			half, most := took(t, pool, a, samples[i])
			line += "  " + half + " " + most
		}
		t.Logf("%-36s%s", a.name, line)
	}
}

func took(t *testing.T, pool *pgxpool.Pool, a asked, payments []Payment) (half, most string) {
	t.Helper()
	q := NewQueries(pool)
	var all []time.Duration
	begun := time.Now()
	for i, p := range payments {
		scope := merchant(t, p.MerchantID)
		if a.everybody {
			scope = operator(t)
		}
		since := time.Now()
		err := a.ask(scope.Bound(t.Context()), q, scope, p)
		if postgres.TimedOut(err) {
			err = nil // and has its 15 s
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", a.name, err)
		}
		if i >= len(payments)/2 || time.Since(begun) > 30*time.Second { // what is slow needs no thousands
			all = append(all, time.Since(since))
		}
		if time.Since(begun) > time.Minute {
			break
		}
	}
	slices.Sort(all)
	ms := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds()*1000, 'f', 2, 64) }
	return ms(all[len(all)/2]), ms(all[len(all)*99/100])
}
