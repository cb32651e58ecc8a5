package api

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/payment"
	"payments/internal/report"
)

func (w *world) refreshReports() {
	w.t.Helper()
	r, err := report.NewRefresher(w.pool, report.RefresherConfig{Registerer: prometheus.NewRegistry(), Log: w.api.Log, Interval: time.Hour})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := r.RunOnce(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestReports(t *testing.T) {
	w := newWorld(t)
	w.refused("before the first refresh", w.do("GET", "/v1/reports/revenue", w.merchant, ""), 503, payment.CodeReportNotReady)
	id := w.placed("A-1", "")
	w.make(id, payment.StatusSucceeded)
	if a := w.do("POST", "/v1/ops/reports/refresh", w.operator, "{}"); a.status != 202 || a.at(t, "as_of") != nil || a.at(t, "requested_at") == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.refreshReports()
	today := time.Now().UTC().Format(time.DateOnly)
	a := w.do("GET", "/v1/reports/revenue", w.merchant, "")
	if a.status != 200 || a.at(t, "object") != "report" || a.at(t, "refresh_seconds") != "3600" || a.at(t, "time_zone") != "UTC" || a.at(t, "data.0.period") != today ||
		a.at(t, "data.0.gross") != "4998" || a.at(t, "data.0.net") != "4998" || a.at(t, "data.0.payments") != "1" || a.at(t, "data.0.currency_exponent") != "2" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if asOf, err := time.Parse(time.RFC3339, a.at(t, "as_of").(string)); err != nil || time.Since(asOf) > time.Minute {
		t.Errorf("as of %s: %v", asOf, err)
	}
	for path, want := range map[string]string{
		"approval_rate": "data.0.payment_method", "top_products?group_by=month&limit=1": "data.0.sku",
	} {
		if a := w.do("GET", "/v1/reports/"+path, w.merchant, ""); a.status != 200 || a.at(t, want) == nil {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"revenue", "approval_rate", "failures", "top_products", "refunds"} {
		if a := w.do("GET", "/v1/reports/"+path, w.other, ""); a.status != 200 || len(a.at(t, "data").([]any)) != 0 {
			t.Errorf("another's %s: %d %s", path, a.status, a.body)
		}
		if a := w.do("GET", "/v1/reports/"+path+"?merchant="+w.merchantID, w.operator, ""); a.status != 200 {
			t.Errorf("an operator's %s: %d %s", path, a.status, a.body)
		}
		w.refused(path, w.do("GET", "/v1/reports/"+path+"?merchant="+w.merchantID, w.other, ""), 403, payment.CodeForbidden)
	}
	state := w.do("GET", "/v1/ops/reports", w.operator, "")
	if state.status != 200 || state.at(t, "failure") != nil || state.at(t, "as_of") != a.at(t, "as_of") || len(state.at(t, "view_ms").(map[string]any)) != 6 {
		t.Errorf("%d %s", state.status, state.body)
	}
	if a := w.do("GET", "/v1/ops/reports/saga_durations", w.operator, ""); a.status != 200 || !strings.Contains(a.body, `"group_by":["definition","outcome"]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestWhatNobodyMayAskOfReports(t *testing.T) {
	w := newWorld(t)
	w.refused("a merchant", w.do("POST", "/v1/ops/reports/refresh", w.merchant, "{}"), 403, payment.CodeForbidden)
	w.refused("a merchant", w.do("GET", "/v1/ops/reports", w.merchant, ""), 403, payment.CodeForbidden)
	w.refused("a merchant", w.do("GET", "/v1/ops/reports/saga_durations", w.merchant, ""), 403, payment.CodeForbidden)
	w.refused("nobody", w.do("GET", "/v1/reports/revenue", "", ""), 401, payment.CodeUnauthenticated)
	w.refused("no such report", w.do("GET", "/v1/reports/secrets", w.merchant, ""), 404, payment.CodeNotFound)
	for query, want := range map[string]string{
		"from=2026-13-01": "/query/from date_invalid", "to=2026-11-24T10:00:00Z": "/query/to date_invalid", "from=2026-02-02&to=2026-02-01": "/query/to out_of_range",
		"currency=XXX": "/query/currency currency_invalid", "group_by=customer": "/query/group_by group_invalid", "merchant=x": "/query/merchant id_invalid",
		"limit=1": "/query/limit parameter_unknown", "from=2026-01-01&from=2026-01-02": "/query/from parameter_repeated",
	} {
		if errs := w.refused(query, w.do("GET", "/v1/reports/revenue?"+query, w.merchant, ""), 400, payment.CodeInvalid); !slices.Equal(errs, []string{want}) {
			t.Errorf("%s: %v", query, errs)
		}
	}
}
