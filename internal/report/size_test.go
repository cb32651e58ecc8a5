package report

import (
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/singleflight"
)

var (
	sizePayments  = flag.Int("report-payments", 0, "how many payments TestReportsAtSize makes; 0 skips it")
	sizeRefreshes = flag.Int("report-refreshes", 5, "how many refreshes TestReportsAtSize makes after the first")
)

// live are the reports' queries as they would be asked of the write model.
var live = []struct {
	name string
	q    Query
	sql  string
	args []any
}{
	{"revenue of a merchant by month", Query{Kind: Revenue, Merchant: id(1), GroupBy: []string{"month"}}, `
		SELECT date_trunc('month', created_at)::date, currency, count(*), sum(amount_captured), sum(amount_refunded) FROM payments
		WHERE amount_captured > 0 AND merchant_id = $1 AND created_at >= $2 AND created_at < $3 GROUP BY 1, 2 ORDER BY 1, 2`, []any{id(1)}},
	{"revenue of all by month", Query{Kind: Revenue, GroupBy: []string{"month"}}, `
		SELECT date_trunc('month', created_at)::date, currency, count(*), sum(amount_captured), sum(amount_refunded) FROM payments
		WHERE amount_captured > 0 AND created_at >= $1 AND created_at < $2 GROUP BY 1, 2 ORDER BY 1, 2`, nil},
	{"approval rate of a merchant by method", Query{Kind: ApprovalRate, Merchant: id(1), GroupBy: []string{"payment_method"}}, `
		SELECT payment_method, count(*), count(authorization_reference), count(*) FILTER (WHERE failure_step = 'authorize_payment') FROM payments
		WHERE merchant_id = $1 AND created_at >= $2 AND created_at < $3 GROUP BY 1 ORDER BY 1`, []any{id(1)}},
	{"failures of all by code", Query{Kind: Failures, GroupBy: []string{"code"}}, `
		SELECT failure_code, count(*) FROM payments WHERE status = 'failed' AND created_at >= $1 AND created_at < $2 GROUP BY 1 ORDER BY 1`, nil},
	{"top products of a merchant", Query{Kind: TopProducts, Merchant: id(1)}, `
		SELECT p.currency, l.sku, sum(l.quantity), sum(l.quantity * l.unit_amount) FROM order_lines l JOIN payments p USING (merchant_id, order_id)
		WHERE merchant_id = $1 AND p.amount_captured > 0 AND p.created_at >= $2 AND p.created_at < $3 GROUP BY 1, 2 ORDER BY 4 DESC LIMIT 10`, []any{id(1)}},
	{"saga durations", Query{Kind: SagaDurations}, `
		SELECT definition, state, count(*), percentile_disc(ARRAY[0.5, 0.9, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY updated_at - created_at) FROM sagas
		WHERE state IN ('completed', 'compensated') AND updated_at >= $1 AND updated_at < $2 GROUP BY 1, 2`, nil},
}

const sizeDays = 365

// TestReportsAtSize measures live queries, caches and views side by side, and refreshes
// beside a reader and a writer (docs/patterns/materialized-views.md has the numbers):
//
//	make bench-reports PAYMENTS=10000000 REFRESHES=5
//
// The write model is without its foreign keys and the indexes of orders and sagas that
// no report uses, so that it is made in minutes.
func TestReportsAtSize(t *testing.T) {
	if *sizePayments == 0 {
		t.Skip("-report-payments is 0")
	}
	w := newWorld(t, 0)
	s := size{world: w, since: time.Now()}
	s.fill()
	s.refreshOnce("first filling")
	s.sideBySide()
	s.herd()
	s.refreshes()
}

type size struct {
	*world
	since time.Time
}

func (s *size) lap(format string, args ...any) {
	s.t.Helper()
	s.t.Logf("%8.2f s  %s", time.Since(s.since).Seconds(), fmt.Sprintf(format, args...))
	s.since = time.Now()
}

func (s *size) fill() {
	s.exec(`
		ALTER TABLE order_lines DROP CONSTRAINT order_lines_merchant_id_order_id_fkey, DISABLE TRIGGER order_lines_whole;
		ALTER TABLE payments DROP CONSTRAINT payments_merchant_id_order_id_fkey;
		ALTER TABLE refunds DROP CONSTRAINT refunds_merchant_id_payment_id_fkey;
		ALTER TABLE sagas DROP CONSTRAINT sagas_merchant_id_definition_subject_key; DROP INDEX sagas_id; DROP INDEX sagas_not_ended; SET work_mem = '64MB'`)
	s.lap("%d payments are to be made", *sizePayments)
	s.without = "INSERT INTO orders"
	s.generate(*sizePayments, sizeDays)
	s.lap("payments made")
}

func (s *size) refreshOnce(what string) time.Duration {
	s.t.Helper()
	s.refresh()
	st := s.state()
	took := st.EndedAt.Sub(st.StartedAt)
	s.lap("%s: %s %v", what, took.Round(time.Millisecond), st.Seconds)
	return took
}

func median(n int, f func()) time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		began := time.Now()
		f()
		all[i] = time.Since(began)
	}
	slices.Sort(all)
	return all[n/2]
}

func (s *size) ask(q Query) error {
	q.From, q.To, q.Top = firstDay, firstDay.AddDate(0, 0, sizeDays), DefaultTop
	var err error
	switch q.Kind {
	case Revenue:
		_, err = s.queries.Revenue(s.t.Context(), s.all, q)
	case ApprovalRate:
		_, err = s.queries.ApprovalRate(s.t.Context(), s.all, q)
	case Failures:
		_, err = s.queries.Failures(s.t.Context(), s.all, q)
	case TopProducts:
		_, err = s.queries.TopProducts(s.t.Context(), s.all, q)
	case SagaDurations:
		_, err = s.queries.SagaDurations(s.t.Context(), s.all, q)
	case Refunds:
		_, err = s.queries.Refunds(s.t.Context(), s.all, q)
	}
	return err
}

func (s *size) live(sql string, args []any) error {
	args = append(slices.Clone(args), firstDay, firstDay.AddDate(0, 0, sizeDays))
	return pgx.BeginFunc(s.t.Context(), s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(s.t.Context(), `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		rows, err := tx.Query(s.t.Context(), sql, args...)
		if err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	})
}

func (s *size) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

func (s *size) sideBySide() {
	for _, l := range live {
		slow := median(3, func() { s.must(s.live(l.sql, l.args)) })
		fast := median(51, func() { s.must(s.ask(l.q)) })
		s.lap("%-38s live %10s, view %9s: %.0f times", l.name, slow.Round(time.Millisecond), fast.Round(10*time.Microsecond), float64(slow)/float64(fast))
	}
}

// herd sends a hundred at once, when a cache that they all use has just expired, for
// a merchant of middling size.
func (s *size) herd() {
	l := live[0]
	at := func(ask func() error) (slowest, all time.Duration) {
		var wg sync.WaitGroup
		took := make([]time.Duration, 100)
		start := make(chan struct{})
		for i := range took {
			wg.Go(func() {
				<-start
				began := time.Now()
				s.must(ask())
				took[i] = time.Since(began)
			})
		}
		began := time.Now()
		close(start)
		wg.Wait()
		return slices.Max(took), time.Since(began)
	}
	args := []any{id(10)}
	q := l.q
	q.Merchant = id(10)
	s.lap("one alone: live %s, view %s", median(3, func() { s.must(s.live(l.sql, args)) }).Round(time.Millisecond), median(11, func() { s.must(s.ask(q)) }).Round(10*time.Microsecond))
	var flight singleflight.Group
	for _, c := range []struct {
		name string
		ask  func() error
	}{
		{"cache that has expired: all miss", func() error { return s.live(l.sql, args) }},
		{"cache with one flight: 99 wait for one", func() error {
			_, err, _ := flight.Do("", func() (any, error) { return nil, s.live(l.sql, args) })
			return err
		}},
		{"view", func() error { return s.ask(q) }},
	} {
		slowest, all := at(c.ask)
		s.lap("100 at once, %-40s the slowest %8s, all %8s", c.name, slowest.Round(time.Millisecond), all.Round(time.Millisecond))
	}
}

// refreshes goes on beside a reader and a writer, and tells what they leave behind.
func (s *size) refreshes() {
	if *sizeRefreshes == 0 {
		return
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var reads, writes int
	var slowRead, slowWrite time.Duration
	loop := func(n *int, slowest *time.Duration, f func() error) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				s.must(f())
				*slowest = max(*slowest, time.Since(began))
				*n++
			}
		})
	}
	loop(&reads, &slowRead, func() error { return s.ask(live[0].q) })
	step := *sizePayments / 5000
	loop(&writes, &slowWrite, func() error {
		_, err := s.pool.Exec(s.t.Context(), `
			UPDATE payments SET amount_refunded = least(amount_refunded + 1, amount_captured) WHERE merchant_id = (SELECT merchant_id FROM payments WHERE id = $1)
				AND id = $1`, fmt.Sprintf("pay_01jqh%021d", 1+writes*step%*sizePayments))
		return err
	})
	before := s.sizes()
	var took []time.Duration
	for i := range *sizeRefreshes {
		took = append(took, s.refreshOnce(fmt.Sprintf("refresh %d", i+1)))
	}
	close(stop)
	wg.Wait()
	slices.Sort(took)
	s.lap("%d refreshes: %s to %s, median %s; %d reads, the slowest %s, %d writes, the slowest %s, none failed: %t", len(took), took[0].Round(time.Millisecond),
		took[len(took)-1].Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond), reads, slowRead, writes, slowWrite, !s.t.Failed())
	s.t.Logf("before %s", before)
	s.t.Logf("after  %s", s.sizes())
}

// sizes in KiB of the views with their indexes, and of the catalogs that a temporary
// table at each refresh goes through.
func (s *size) sizes() (all string) {
	s.t.Helper()
	if err := s.owner.QueryRow(s.t.Context(), `
		SELECT string_agg(relname || ' ' || pg_total_relation_size(oid) / 1024, ', ' ORDER BY relname) FROM pg_class
		WHERE relnamespace = 'reports'::regnamespace AND relkind = 'm' OR oid IN ('pg_class'::regclass, 'pg_attribute'::regclass, 'pg_type'::regclass, 'pg_depend'::regclass)`).Scan(&all); err != nil {
		s.t.Fatal(err)
	}
	return all
}
