package api

import (
	"context"
	"net/http"
	"time"

	"payments/internal/access"
	"payments/internal/report"
)

// Reports are answered from materialized views and as old as their AsOf.
type Reports interface {
	Revenue(ctx context.Context, scope access.Scope, q report.Query) (report.Answer[report.RevenueRow], error)
	ApprovalRate(ctx context.Context, scope access.Scope, q report.Query) (report.Answer[report.ApprovalRow], error)
	Failures(ctx context.Context, scope access.Scope, q report.Query) (report.Answer[report.FailureRow], error)
	TopProducts(ctx context.Context, scope access.Scope, q report.Query) (report.Answer[report.ProductRow], error)
	Refunds(ctx context.Context, scope access.Scope, q report.Query) (report.Answer[report.RefundRow], error)
	SagaDurations(ctx context.Context, scope access.Scope, q report.Query) (report.Answer[report.DurationRow], error)
	State(ctx context.Context) (report.State, error)
	Request(ctx context.Context) (at time.Time, err error)
}

// reportResource is a report; its rows are what internal/report says of them.
type reportResource[Row any] struct {
	Object string      `json:"object"`
	Report report.Kind `json:"report"`
	// What was committed by then is in it, and what came later is not.
	AsOf           time.Time `json:"as_of"`
	RefreshSeconds int64     `json:"refresh_seconds"`
	TimeZone       string    `json:"time_zone"`
	From           string    `json:"from"` // the first day
	To             string    `json:"to"`   // the day behind the last one
	GroupBy        []string  `json:"group_by"`
	Data           []Row     `json:"data"`
}

func reportRoute(k report.Kind, handle func(context.Context, *call) error) route {
	return route{method: http.MethodGet, pattern: "/v1/reports/" + string(k), action: access.ReportsRead, parameters: report.Parameters(k), handle: handle}
}

func (s *server) reportRoutes() []route {
	return []route{
		reportRoute(report.Revenue, func(ctx context.Context, c *call) error {
			return answerReport(ctx, s, c, report.Revenue, s.Reports.Revenue)
		}),
		reportRoute(report.ApprovalRate, func(ctx context.Context, c *call) error {
			return answerReport(ctx, s, c, report.ApprovalRate, func(ctx context.Context, scope access.Scope, q report.Query) (report.Answer[report.ApprovalRow], error) {
				a, err := s.Reports.ApprovalRate(ctx, scope, q)
				if err != nil {
					return a, err
				}
				a.Rows, err = report.NameMethods(a.Rows, func(r report.ApprovalRow) (string, error) {
					return s.method(c, r.PaymentMethod, r.PaymentMethodCiphertext, r.Example)
				})
				return a, err
			})
		}),
		reportRoute(report.Failures, func(ctx context.Context, c *call) error {
			return answerReport(ctx, s, c, report.Failures, s.Reports.Failures)
		}),
		reportRoute(report.TopProducts, func(ctx context.Context, c *call) error {
			return answerReport(ctx, s, c, report.TopProducts, s.Reports.TopProducts)
		}),
		reportRoute(report.Refunds, func(ctx context.Context, c *call) error {
			return answerReport(ctx, s, c, report.Refunds, s.Reports.Refunds)
		}),
		{
			method: http.MethodGet, pattern: "/v1/ops/reports/saga_durations", action: access.SagasRead, parameters: report.Parameters(report.SagaDurations),
			handle: func(ctx context.Context, c *call) error {
				return answerReport(ctx, s, c, report.SagaDurations, s.Reports.SagaDurations)
			},
		},
		{method: http.MethodGet, pattern: "/v1/ops/reports", action: access.ReportsRefresh, handle: s.getReportState},
		// Asked for as often as one likes, it is made once: no Idempotency-Key.
		{method: http.MethodPost, pattern: "/v1/ops/reports/refresh", action: access.ReportsRefresh, handle: s.requestRefresh},
	}
}

func answerReport[Row any](ctx context.Context, s *server, c *call, k report.Kind,
	read func(context.Context, access.Scope, report.Query) (report.Answer[Row], error),
) error {
	q, err := report.ParseQuery(k, c.query, time.Now())
	if err != nil {
		return err
	}
	a, err := read(ctx, c.scope, q)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, reportResource[Row]{
		Object: "report", Report: k, AsOf: shown(a.AsOf), RefreshSeconds: int64(a.Every / time.Second), TimeZone: "UTC",
		From: q.From.Format(time.DateOnly), To: q.To.Format(time.DateOnly), GroupBy: q.Dimensions(), Data: a.Rows,
	})
}

// refreshResource tells operators how the reports are kept up to date. Times are
// null for never.
type refreshResource struct {
	Object         string     `json:"object"`
	AsOf           *time.Time `json:"as_of"`
	RefreshSeconds *int64     `json:"refresh_seconds"`
	RequestedAt    *time.Time `json:"requested_at"`
	// The newest refresh that has ended.
	StartedAt *time.Time `json:"started_at"`
	EndedAt   *time.Time `json:"ended_at"`
	Failure   *string    `json:"failure"` // null if it succeeded
	Failures  int        `json:"failures_in_a_row"`
	// How long each view took in the newest that succeeded.
	ViewMilliseconds map[string]int64 `json:"view_ms"`
}

func newRefreshResource(s report.State) refreshResource {
	given := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return utc(&t)
	}
	r := refreshResource{
		Object: "report_refresh", AsOf: given(s.AsOf), RequestedAt: given(s.RequestedAt), StartedAt: given(s.StartedAt), EndedAt: given(s.EndedAt),
		Failures: s.Failures, ViewMilliseconds: map[string]int64{},
	}
	if s.Failure != "" {
		r.Failure = &s.Failure
	}
	if s.Every > 0 {
		every := int64(s.Every / time.Second)
		r.RefreshSeconds = &every
	}
	for view, seconds := range s.Seconds {
		r.ViewMilliseconds[view] = int64(seconds * 1000)
	}
	return r
}

func (s *server) getReportState(ctx context.Context, c *call) error {
	state, err := s.Reports.State(ctx)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, newRefreshResource(state))
}

// requestRefresh answers before it is made: it is there once as_of is not before requested_at.
func (s *server) requestRefresh(ctx context.Context, c *call) error {
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	at, err := s.Reports.Request(ctx)
	if err != nil {
		return err
	}
	s.Log.InfoContext(ctx, "refresh of reports requested", "operator", c.principal.KeyID)
	state, err := s.Reports.State(ctx)
	if err != nil {
		return err
	}
	state.RequestedAt = at
	s.write(ctx, c.w, http.StatusAccepted, "application/json", newRefreshResource(state))
	return nil
}
