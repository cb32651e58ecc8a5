package report

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// sum adds up by the names of its groups.
type sum map[string]map[string]int64

func (s sum) add(group []string, measure string, n int64) {
	key := strings.Join(group, " ")
	if s[key] == nil {
		s[key] = map[string]int64{}
	}
	s[key][measure] += n
}

// in is the first day of the period that t is in.
func in(period string, t time.Time) string {
	t = t.UTC().Truncate(24 * time.Hour)
	switch period {
	case "week":
		t = t.AddDate(0, 0, -(int(t.Weekday())+6)%7)
	case "month":
		t = t.AddDate(0, 0, 1-t.Day())
	}
	return t.Format(time.DateOnly)
}

type row struct {
	merchant, currency, method, status, code, step, authorization string
	captured, refunded                                            int64
	at                                                            time.Time
}

func (w *world) payments() (all []row) {
	w.t.Helper()
	rows, err := w.owner.Query(w.t.Context(), `
		SELECT merchant_id, currency, payment_method, status, coalesce(failure_code, ''), coalesce(failure_step, ''),
			coalesce(authorization_reference, ''), amount_captured, amount_refunded, created_at FROM payments`)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() { //nolint:forbidigo // the error is read below
		var r row
		if err := rows.Scan(&r.merchant, &r.currency, &r.method, &r.status, &r.code, &r.step, &r.authorization, &r.captured, &r.refunded, &r.at); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, r)
	}
	if rows.Err() != nil || len(all) == 0 {
		w.t.Fatalf("%d payments, %v", len(all), rows.Err())
	}
	return all
}

// Each figure is what one gets who reads the write model's rows and adds them up.
func TestFiguresEqualAPlainCount(t *testing.T) {
	w := newWorld(t, 4000)
	w.refresh()
	payments := w.payments()
	for _, period := range periods {
		want, approvals, failures := sum{}, sum{}, sum{}
		for _, p := range payments {
			at := in(period, p.at)
			if p.captured > 0 {
				g := []string{at, p.merchant, p.currency}
				want.add(g, "payments", 1)
				want.add(g, "gross", p.captured)
				want.add(g, "refunded", p.refunded)
				want.add(g, "net", p.captured-p.refunded)
			}
			g := []string{at, p.method}
			approvals.add(g, "payments", 1)
			approvals.add(g, "approved", 0)
			approvals.add(g, "declined", 0)
			switch {
			case p.authorization != "":
				approvals.add(g, "approved", 1)
			case p.step == "authorize_payment" && p.code != "deadline_exceeded":
				approvals.add(g, "declined", 1)
			}
			if p.status == "failed" {
				failures.add([]string{at, p.code, p.step}, "payments", 1)
			}
		}
		revenue, err := w.queries.Revenue(t.Context(), w.all, query(Revenue, period, "merchant"))
		if err != nil {
			t.Fatal(err)
		}
		got := sum{}
		for _, r := range revenue.Rows {
			g := []string{r.Period, r.Merchant, r.Currency}
			got.add(g, "payments", r.Payments)
			got.add(g, "gross", r.Gross)
			got.add(g, "refunded", r.Refunded)
			got.add(g, "net", r.Net)
			if c, err := payment.ParseCurrency(r.Currency); err != nil || r.CurrencyExponent == nil || *r.CurrencyExponent != c.Exponent() {
				t.Fatalf("%+v", r)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("revenue by %s: %s", period, d)
		}
		rates, err := w.queries.ApprovalRate(t.Context(), w.all, query(ApprovalRate, period, "payment_method"))
		if err != nil {
			t.Fatal(err)
		}
		got = sum{}
		for _, r := range rates.Rows {
			g := []string{r.Period, r.PaymentMethod}
			got.add(g, "payments", r.Payments)
			got.add(g, "approved", r.Approved)
			got.add(g, "declined", r.Declined)
			if r.Rate.Numerator != r.Approved || r.Rate.Denominator != r.Approved+r.Declined {
				t.Errorf("%+v", r)
			}
		}
		if d := cmp.Diff(approvals, got); d != "" {
			t.Errorf("approval rate by %s: %s", period, d)
		}
		failed, err := w.queries.Failures(t.Context(), w.all, query(Failures, period, "code", "step"))
		if err != nil {
			t.Fatal(err)
		}
		got = sum{}
		for _, r := range failed.Rows {
			got.add([]string{r.Period, r.Code, r.Step}, "payments", r.Payments)
		}
		if d := cmp.Diff(failures, got); d != "" {
			t.Errorf("failures by %s: %s", period, d)
		}
	}
}

func TestASpanAndACurrencyNarrow(t *testing.T) {
	w := newWorld(t, 4000)
	w.refresh()
	from, to := firstDay.AddDate(0, 0, 9), firstDay.AddDate(0, 0, 12)
	var want RevenueRow
	for _, p := range w.payments() {
		if p.currency == "JPY" && p.captured > 0 && !p.at.Before(from) && p.at.Before(to) {
			want.Payments, want.Gross, want.Refunded = want.Payments+1, want.Gross+p.captured, want.Refunded+p.refunded
		}
	}
	exponent := 0
	want.Net, want.Group = want.Gross-want.Refunded, Group{Period: "2026-01-01", Currency: "JPY", CurrencyExponent: &exponent}
	a, err := w.queries.Revenue(t.Context(), w.all, Query{Kind: Revenue, From: from, To: to, Currency: "JPY", GroupBy: []string{"month"}, Top: 1})
	if err != nil || want.Payments == 0 {
		t.Fatal(err, want)
	}
	if d := cmp.Diff([]RevenueRow{want}, a.Rows); d != "" {
		t.Error(d)
	}
	if a.Every != 5*time.Minute {
		t.Errorf("every %s", a.Every)
	}
}

func TestTopProducts(t *testing.T) {
	w := newWorld(t, 4000)
	w.refresh()
	sold := sum{}
	rows, err := w.owner.Query(t.Context(), `
		SELECT p.currency, l.merchant_id, l.sku, l.quantity, l.unit_amount FROM order_lines l JOIN payments p USING (merchant_id, order_id) WHERE status = 'succeeded'`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() { //nolint:forbidigo // the error is read below
		var g [3]string
		var quantity, unit int64
		if err := rows.Scan(&g[0], &g[1], &g[2], &quantity, &unit); err != nil {
			t.Fatal(err)
		}
		sold.add(g[:], "gross", quantity*unit)
		sold.add(g[:], "quantity", quantity)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	var want []string
	for _, currency := range []string{"EUR", "JPY", "USD"} {
		var of []string
		for g := range sold {
			if strings.HasPrefix(g, currency) {
				of = append(of, g)
			}
		}
		slices.SortFunc(of, func(a, b string) int {
			return int((sold[b]["gross"]-sold[a]["gross"])<<40) + int((sold[b]["quantity"]-sold[a]["quantity"])<<8) + strings.Compare(a, b)
		})
		for i, g := range of[:5] {
			want = append(want, fmt.Sprintf("%d %s %d %d", i+1, g, sold[g]["quantity"], sold[g]["gross"]))
		}
	}
	q := query(TopProducts)
	q.Top = 5
	a, err := w.queries.TopProducts(t.Context(), w.all, q)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range a.Rows {
		got = append(got, fmt.Sprintf("%d %s %s %s %d %d", r.Rank, r.Currency, r.Merchant, r.SKU, r.Quantity, r.Gross))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestRefundsAndDurations(t *testing.T) {
	w := newWorld(t, 4000)
	w.refresh()
	want := sum{}
	rows, err := w.owner.Query(t.Context(), `SELECT created_at, status, amount FROM refunds`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() { //nolint:forbidigo // the error is read below
		var at time.Time
		var status string
		var amount int64
		if err := rows.Scan(&at, &status, &amount); err != nil {
			t.Fatal(err)
		}
		want.add([]string{in("week", at), status}, "refunds", 1)
		want.add([]string{in("week", at), status}, "amount", amount)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	q := query(Refunds, "week", "status")
	q.To = lastDay.AddDate(0, 0, 10)
	a, err := w.queries.Refunds(t.Context(), w.all, q)
	if err != nil {
		t.Fatal(err)
	}
	got := sum{}
	for _, r := range a.Rows {
		got.add([]string{r.Period, r.Status}, "refunds", r.Refunds)
		got.add([]string{r.Period, r.Status}, "amount", r.Amount)
	}
	if d := cmp.Diff(want, got); d != "" || len(want) < 3 {
		t.Error(d)
	}

	d, err := w.queries.SagaDurations(t.Context(), w.all, query(SagaDurations))
	if err != nil || len(d.Rows) != 2 {
		t.Fatalf("%+v %v", d, err)
	}
	for _, r := range d.Rows {
		var exact [5]float64
		var n int64
		if err := w.owner.QueryRow(t.Context(), `
			SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY ms), percentile_disc(0.9) WITHIN GROUP (ORDER BY ms),
				percentile_disc(0.95) WITHIN GROUP (ORDER BY ms), percentile_disc(0.99) WITHIN GROUP (ORDER BY ms), max(ms)
			FROM (SELECT extract(epoch FROM updated_at - created_at)::float8 * 1000 AS ms FROM sagas WHERE state = $1 AND updated_at < $2) s`,
			r.Outcome, lastDay).Scan(&n, &exact[0], &exact[1], &exact[2], &exact[3], &exact[4]); err != nil {
			t.Fatal(err)
		}
		if r.Sagas != n || r.Definition != "payment" {
			t.Errorf("%+v of %d", r, n)
		}
		for i, p := range []int64{r.P50, r.P90, r.P95, r.P99, r.Max} {
			if float64(p) < exact[i] || float64(p) > (exact[i]+1)*1.1 {
				t.Errorf("%s: percentile %d is %d ms, exactly %f", r.Outcome, i, p, exact[i])
			}
		}
	}
}

func TestRate(t *testing.T) {
	for _, c := range []struct {
		numerator, denominator int64
		want                   string
	}{{1, 3, "0.3333"}, {2, 3, "0.6667"}, {0, 5, "0.0000"}, {5, 5, "1.0000"}, {1, 20000, "0.0001"}, {9_007_199_254_740_993, 9_007_199_254_740_993, "1.0000"}} {
		if r := newRate(c.numerator, c.denominator); r.Decimal == nil || *r.Decimal != c.want {
			t.Errorf("%d / %d: %+v", c.numerator, c.denominator, r)
		}
	}
	if r := newRate(0, 0); r.Decimal != nil {
		t.Errorf("%+v", r)
	}
}

// id of the world's merchant i.
func id(i int) string { return "mer_01jqh" + fmt.Sprintf("%021d", i) }

// Once by the scope, once with the scope taken away: the views' own wall alone.
func TestAMerchantSeesItsOwnAlone(t *testing.T) {
	w := newWorld(t, 4000)
	w.refresh()
	var others, own int64
	for _, p := range w.payments() {
		switch {
		case p.captured > 0 && p.merchant == id(1):
			own += p.captured - p.refunded
		case p.captured > 0:
			others += p.captured - p.refunded
		}
	}
	bound := postgres.ForTenant(t.Context(), id(1))
	for name, c := range map[string]struct {
		scope func() (a Answer[RevenueRow], err error)
		want  int64
	}{
		"scope": {func() (Answer[RevenueRow], error) {
			return w.queries.Revenue(t.Context(), w.scope(id(1)), query(Revenue, "month", "merchant"))
		}, own},
		"second wall": {func() (Answer[RevenueRow], error) {
			return w.queries.Revenue(bound, w.all, query(Revenue, "month", "merchant"))
		}, own},
		"operator": {func() (Answer[RevenueRow], error) {
			return w.queries.Revenue(t.Context(), w.all, query(Revenue, "month", "merchant"))
		}, own + others},
	} {
		a, err := c.scope()
		if err != nil {
			t.Fatal(err)
		}
		var net int64
		for _, r := range a.Rows {
			net += r.Net
			if name != "operator" && r.Merchant != id(1) {
				t.Errorf("%s shows %s", name, r.Merchant)
			}
		}
		if net != c.want || own == 0 || others == 0 {
			t.Errorf("%s: %d, want %d", name, net, c.want)
		}
	}
	q := query(Revenue, "month")
	q.Merchant = id(2)
	_, err := w.queries.Revenue(t.Context(), w.scope(id(1)), q)
	if refusal, ok := errors.AsType[*payment.Error](err); !ok || refusal.Code != payment.CodeForbidden {
		t.Errorf("another's: %v", err)
	}
	if a, err := w.queries.Revenue(t.Context(), w.all, q); err != nil || len(a.Rows) == 0 {
		t.Errorf("an operator who narrows: %v %v", a, err)
	}
	// Each view, and what is nobody's own.
	for k, def := range kinds {
		var foreign, seen int
		foreignSQL := "merchant_id <> '" + id(1) + "'"
		if def.everybodys {
			foreignSQL = "true"
		}
		if err := postgres.InTx(bound, w.pool, func(tx pgx.Tx) error {
			return tx.QueryRow(bound, "SELECT count(*) FILTER (WHERE "+foreignSQL+"), count(*) FROM "+def.view).Scan(&foreign, &seen)
		}); err != nil || foreign != 0 || seen == 0 && !def.everybodys {
			t.Errorf("%s: %d of %d rows are others' (%v)", k, foreign, seen, err)
		}
		if err := w.pool.QueryRow(t.Context(), "SELECT count(*) FROM reports."+string(k)).Scan(&seen); err == nil {
			t.Errorf("the service's role goes around the wall of %s", k)
		}
	}
	if a, err := w.queries.SagaDurations(t.Context(), w.scope(id(1)), query(SagaDurations)); err != nil || len(a.Rows) != 0 {
		t.Errorf("a merchant sees the service's durations: %v %v", a, err)
	}
}

func TestTooManyGroupsAreRefused(t *testing.T) {
	w := newWorld(t, 40000)
	w.refresh()
	a, err := w.queries.TopProducts(t.Context(), w.all, Query{Kind: TopProducts, From: firstDay, To: lastDay, GroupBy: []string{"day"}, Top: MaxTop})
	refusal, ok := errors.AsType[*payment.Error](err)
	if !ok || refusal.Code != payment.CodeInvalid || refusal.Fields[0].Code != "too_many_groups" {
		t.Errorf("%d rows, %v", len(a.Rows), err)
	}
}

func TestBeforeTheFirstRefresh(t *testing.T) {
	w := newWorld(t, 100)
	_, err := w.queries.Revenue(t.Context(), w.all, query(Revenue, "day"))
	if refusal, ok := errors.AsType[*payment.Error](err); !ok || refusal.Code != payment.CodeReportNotReady {
		t.Error(err)
	}
}

func parse(t *testing.T, query string) url.Values {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func TestParseQuery(t *testing.T) {
	now := time.Date(2026, 11, 24, 23, 59, 0, 0, time.FixedZone("", 3600))
	q, err := ParseQuery(Revenue, nil, now)
	want := Query{Kind: Revenue, From: time.Date(2026, 10, 26, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC), GroupBy: []string{"day"}, Top: 10}
	if d := cmp.Diff(want, q); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, c := range []struct {
		kind  Kind
		query string
		want  []string
	}{
		{Revenue, "from=2026-01-01&to=2026-02-01&currency=EUR&group_by=month,merchant", nil},
		{Revenue, "from=2026-01-01T00:00:00Z", []string{"/query/from date_invalid"}}, // openapi.yaml promises days
		{Revenue, "from=yesterday&to=2026-02-30", []string{"/query/to date_invalid", "/query/from date_invalid"}},
		{Revenue, "from=2026-02-01&to=2026-02-01", []string{"/query/to out_of_range"}},
		{Revenue, "from=1969-12-31", []string{"/query/from date_invalid"}},
		{Revenue, "currency=eur", []string{"/query/currency currency_invalid"}},
		{Revenue, "currency=", []string{"/query/currency currency_invalid"}},
		{Revenue, "merchant=shop", []string{"/query/merchant id_invalid"}},
		{Revenue, "group_by=", []string{"/query/group_by group_invalid"}},
		{Revenue, "group_by=day,week", []string{"/query/group_by group_invalid"}},
		{Revenue, "group_by=merchant,merchant", []string{"/query/group_by group_invalid"}},
		{Revenue, "group_by=payment_method", []string{"/query/group_by group_invalid"}},
		{ApprovalRate, "group_by=payment_method,week", nil},
		{TopProducts, "limit=0", []string{"/query/limit out_of_range"}},
		{TopProducts, "limit=101", []string{"/query/limit out_of_range"}},
		{TopProducts, "limit=100&group_by=month", nil},
	} {
		q, err := ParseQuery(c.kind, parse(t, c.query), now)
		var got []string
		if refusal, ok := errors.AsType[*payment.Error](err); ok {
			for _, f := range refusal.Fields {
				got = append(got, f.Pointer+" "+f.Code)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s%+v", c.query, d, q)
		}
	}
}
