package readmodel

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/devstack/devtest"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret/secrettest"
	"payments/internal/seed"
)

var updatePlans = flag.Bool("update-plans", false, "write testdata/plans.golden")

const plannedPayments = 100_000

// statements notes what is sent, as it is sent.
type statements struct{ sent []sent }

type sent struct {
	sql  string
	args []any
}

func (s *statements) note(sql string, args []any) {
	if strings.Contains(sql, "FROM payment_") || strings.Contains(sql, "FROM refund_view") {
		s.sent = append(s.sent, sent{sql, args})
	}
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	s.note(d.SQL, d.Args)
	return ctx
}
func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (*statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (s *statements) TraceBatchQuery(_ context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	s.note(d.SQL, d.Args)
}
func (*statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// seeded is a database of the size, opened as the service's role, which row-level
// security binds.
func seeded(tb testing.TB, payments int) *pgxpool.Pool {
	tb.Helper()
	return seededIn(tb, payments, 365)
}

func seededIn(tb testing.TB, payments, days int) *pgxpool.Pool {
	tb.Helper()
	urls := devtest.Database(tb)
	owner, err := postgres.Open(tb.Context(), urls.OwnerURL)
	if err != nil {
		tb.Fatal(err)
	}
	defer owner.Close()
	end := time.Now().AddDate(0, 0, -32)
	if err := seed.Run(tb.Context(), seed.Config{
		Write: owner, Read: owner, Payments: payments, Merchants: 50, Timelines: 1000, Begin: end.AddDate(0, 0, -days), End: end, Seed: 1,
		Methods: order.PaymentMethods(secrettest.Keys(tb)),
	}); err != nil {
		tb.Fatal(err)
	}
	pool, err := postgres.Open(tb.Context(), urls.URL)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// sample are payments by chance, most of them of the largest merchants.
func sample(tb testing.TB, pool *pgxpool.Pool, n int) []Payment {
	tb.Helper()
	rows, err := pool.Query(tb.Context(), selectPayment+`JOIN (
		SELECT payment_id FROM payment_view TABLESAMPLE SYSTEM (5) ORDER BY random() LIMIT $1) s USING (payment_id)`, n)
	if err != nil {
		tb.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, scanPayment)
	if err != nil || len(all) == 0 {
		tb.Fatalf("%d payments: %v", len(all), err)
	}
	return all
}

// asked is one kind of question, of a payment by chance.
type asked struct {
	name      string
	everybody bool // asked by who sees all
	walked    bool // in the order of an index, however few rows the planner expects
	ask       func(ctx context.Context, q *Queries, scope access.Scope, p Payment) error
}

func listing(name string, filter func(p Payment) Filter) asked {
	return asked{name: name, ask: func(ctx context.Context, q *Queries, scope access.Scope, p Payment) error {
		_, err := q.List(ctx, scope, filter(p))
		return err
	}}
}

func byEverybody(a asked) asked {
	a.name, a.everybody = a.name+", all merchants", true
	return a
}

func walking(a asked) asked {
	a.walked = true
	return a
}

func questions() []asked {
	at := func(p Payment) *Cursor { return &Cursor{ID: p.ID, Amount: p.Amount} }
	failed := []payment.Status{payment.StatusFailed}
	return []asked{
		listing("first page", func(Payment) Filter { return Filter{} }),
		listing("deep page", func(p Payment) Filter { return Filter{After: at(p)} }),
		listing("oldest first, deep", func(p Payment) Filter { return Filter{Sort: Sort{Ascending: true}, After: at(p)} }),
		listing("status", func(Payment) Filter { return Filter{Statuses: failed} }),
		listing("status, deep", func(p Payment) Filter { return Filter{Statuses: failed, After: at(p)} }),
		listing("two statuses, deep", func(p Payment) Filter {
			return Filter{Statuses: []payment.Status{payment.StatusFailed, payment.StatusCanceled}, After: at(p)}
		}),
		listing("customer", func(p Payment) Filter { return Filter{Customer: []string{p.CustomerReference}} }),
		listing("order", func(p Payment) Filter { return Filter{Order: []string{p.OrderReference}} }),
		listing("currency, deep", func(p Payment) Filter { return Filter{Currency: p.Currency, After: at(p)} }),
		listing("payment method, deep", func(p Payment) Filter { return Filter{PaymentMethods: []string{p.PaymentMethod}, After: at(p)} }),
		listing("failure code, deep", func(p Payment) Filter { return Filter{FailureCode: "card_declined", After: at(p)} }),
		walking(listing("exact amount", func(p Payment) Filter { return Filter{AmountMin: p.Amount, AmountMax: p.Amount} })),
		walking(listing("a day", func(p Payment) Filter {
			return Filter{CreatedFrom: p.CreatedAt, CreatedTo: p.CreatedAt.AddDate(0, 0, 1)}
		})),
		listing("by amount", func(Payment) Filter { return Filter{Sort: Sort{ByAmount: true}} }),
		listing("by amount, deep", func(p Payment) Filter { return Filter{Sort: Sort{ByAmount: true}, After: at(p)} }),
		listing("search, whole word", func(p Payment) Filter { return Filter{Search: strings.ToLower(p.CustomerReference)} }),
		listing("search, beginning", func(p Payment) Filter {
			return Filter{Search: strings.ToLower(p.OrderReference[:len(p.OrderReference)-1])}
		}),
		listing("search, number alone", func(p Payment) Filter { return Filter{Search: p.OrderReference[2:]} }),
		listing("search, one letter", func(Payment) Filter { return Filter{Search: "c"} }),
		listing("search, one letter, deep", func(p Payment) Filter {
			return Filter{Search: "c", After: &Cursor{ID: p.ID, Term: strings.ToLower(p.CustomerReference)}}
		}),
		listing("search and status", func(p Payment) Filter { return Filter{Search: "c", Statuses: failed} }),
		{name: "single read", ask: func(ctx context.Context, q *Queries, scope access.Scope, p Payment) error {
			_, err := q.Get(ctx, scope, p.ID)
			return err
		}},
		{name: "expansions of a page", ask: func(ctx context.Context, q *Queries, _ access.Scope, p Payment) error {
			_, err := q.Expand(ctx, []Payment{p, p, p}, Expand{Timeline: true, Refunds: true})
			return err
		}},
		{name: "refunds", ask: func(ctx context.Context, q *Queries, scope access.Scope, p Payment) error {
			_, err := q.Refunds(ctx, scope, p.ID, "", 20)
			return err
		}},
		byEverybody(listing("first page", func(Payment) Filter { return Filter{} })),
		byEverybody(listing("deep page", func(p Payment) Filter { return Filter{After: at(p)} })),
		byEverybody(listing("status, deep", func(p Payment) Filter { return Filter{Statuses: failed, After: at(p)} })),
		byEverybody(listing("order", func(p Payment) Filter { return Filter{Order: []string{p.OrderReference}} })),
		byEverybody(listing("search, whole word", func(p Payment) Filter { return Filter{Search: strings.ToLower(p.OrderReference)} })),
	}
}

var (
	indexUsed = regexp.MustCompile(`(?:Index(?: Only)? Scan(?: Backward)? using (\S+) on|Bitmap Index Scan on (\S+))`)
	rowsGiven = regexp.MustCompile(`actual rows=(\d+) loops=(\d+)`)
	readWhole = regexp.MustCompile(`(?m)^.*(?:Seq Scan).*$`)
)

// mostRows is of the node that gave most.
func mostRows(t *testing.T, plan string) (most int) {
	t.Helper()
	for _, m := range rowsGiven.FindAllStringSubmatch(plan, -1) {
		rows, err := strconv.Atoi(m[1])
		loops, err2 := strconv.Atoi(m[2])
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		most = max(most, rows*loops)
	}
	return most
}

// Each statement that Queries sends is planned as the service's role, behind row-level
// security, with 100,000 payments: by which indexes is in testdata/plans.golden, and
// whether far more rows are read than a page shows; no table is read from end to end.
func TestEveryQueryIsAnsweredByAnIndex(t *testing.T) {
	pool := seeded(t, plannedPayments)
	notes := &statements{}
	c := pool.Config()
	c.ConnConfig.Tracer = notes
	traced, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer traced.Close()
	q := NewQueries(traced)
	var p Payment
	rows, err := pool.Query(t.Context(), selectPayment+`
		WHERE v.merchant_id = (SELECT merchant_id FROM payment_view GROUP BY merchant_id ORDER BY count(*) DESC LIMIT 1)
		ORDER BY v.payment_id LIMIT 1 OFFSET 9000`)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = pgx.CollectOneRow(rows, scanPayment); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, a := range questions() {
		scope := merchant(t, p.MerchantID)
		if a.everybody {
			scope = operator(t)
		}
		ctx := scope.Bound(t.Context())
		notes.sent = nil
		if err := a.ask(ctx, q, scope, p); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		if len(notes.sent) == 0 {
			t.Fatalf("%s: no statement was seen", a.name)
		}
		for n, s := range slices.Clone(notes.sent) {
			rows, err := postgres.QueryPlanned(ctx, pool, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) "+s.sql, s.args...)
			if err != nil {
				t.Fatalf("%s: %v", a.name, err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatalf("%s: %v", a.name, err)
			}
			plan := strings.Join(lines, "\n")
			if whole := readWhole.FindString(plan); whole != "" {
				t.Errorf("%s reads a table from end to end: %s\n%s\n%s", a.name, whole, s.sql, plan)
			}
			if a.walked && strings.Contains(plan, "Sort") {
				t.Errorf("%s sorts what it has read:\n%s\n%s", a.name, s.sql, plan)
			}
			var used []string
			for _, m := range indexUsed.FindAllStringSubmatch(plan, -1) {
				used = append(used, m[1]+m[2])
			}
			slices.Sort(used)
			if used = slices.Compact(used); mostRows(t, plan) > 3*DefaultLimit {
				used = append(used, "more than is shown")
			}
			fmt.Fprintf(&b, "%-34s %d  %s\n", a.name, n+1, strings.Join(used, " "))
		}
	}
	const golden = "testdata/plans.golden"
	if *updatePlans {
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("other indexes than %s says (-update-plans writes it):\n%s", golden, diff)
	}
}
