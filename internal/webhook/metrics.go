package webhook

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	deliveries    *prometheus.CounterVec
	seconds       prometheus.Histogram
	overdue       *prometheus.GaugeVec // this and oldest have no labels, and no series before they are measured
	oldest        *prometheus.GaugeVec
	disabled      *prometheus.GaugeVec
	disabledTotal *prometheus.CounterVec
	fenced        prometheus.Counter
	errors        prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_webhook_deliveries_total", Help: "Attempts recorded, by what became of their delivery: succeeded, retried or failed for good.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "payments_webhook_attempt_seconds", Help: "How long receivers took.", Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		overdue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_webhook_oldest_due_seconds", Help: "How long the longest waiting due delivery has waited for a dispatcher, endpoints that fail left out.",
		}, nil),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_webhook_oldest_pending_seconds", Help: "Age of the oldest pending delivery of an enabled endpoint.",
		}, nil),
		disabled: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_webhook_endpoints_disabled", Help: "Endpoints that are disabled and not deleted.",
		}, []string{"reason"}),
		disabledTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_webhook_endpoints_disabled_total", Help: "Endpoints that this process has disabled.",
		}, []string{"reason"}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "payments_webhook_fenced_records_total", Help: "Attempts not recorded because another dispatcher had taken the delivery over.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "payments_webhook_errors_total", Help: "Attempts that were not made, or not recorded, by a fault of ours; they are made again.",
		}),
	}
	for _, reason := range []string{"gone", "failing"} {
		m.disabledTotal.WithLabelValues(reason)
	}
	for _, outcome := range []string{"succeeded", "retried", "failed"} {
		m.deliveries.WithLabelValues(outcome)
	}
	for _, c := range []prometheus.Collector{m.deliveries, m.seconds, m.overdue, m.oldest, m.disabled, m.disabledTotal, m.fenced, m.errors} {
		if err := reg.Register(c); err != nil {
			return m, fmt.Errorf("register webhook metrics: %w", err)
		}
	}
	return m, nil
}

// Measure sets the gauges from the tables, whoever delivers.
func (d *Dispatcher) Measure(ctx context.Context) (again bool, err error) {
	var overdue, oldest float64
	var future bool // the database's clock was set back
	// webhook_deliveries_due serves it: pending rows alone are read.
	err = d.pool.QueryRow(ctx, `
		SELECT coalesce(extract(epoch FROM now() - min(d.due_at) FILTER (WHERE e.failing_since IS NULL)), 0)::float8,
			coalesce(extract(epoch FROM now() - min(d.created_at)), 0)::float8, coalesce(bool_or(`+waitsTooLong+`), false)
				OR EXISTS (SELECT FROM webhook_endpoints e WHERE `+madeInFuture+`)
		FROM webhook_deliveries d JOIN webhook_endpoints e ON e.merchant_id = d.merchant_id AND e.id = d.endpoint_id
		WHERE d.due_at IS NOT NULL AND e.deleted_at IS NULL AND e.disabled_at IS NULL`, lease, longestWaits()).Scan(&overdue, &oldest, &future)
	if err != nil {
		return false, fmt.Errorf("measure deliveries: %w", err)
	}
	d.metrics.overdue.WithLabelValues().Set(max(overdue, 0))
	d.metrics.oldest.WithLabelValues().Set(max(oldest, 0))
	if future {
		if err := d.mendTimes(ctx); err != nil {
			return false, err
		}
	}
	rows, err := d.pool.Query(ctx, `
		SELECT r, count(e.id) FROM unnest('{gone,failing}'::text[]) AS r
		LEFT JOIN webhook_endpoints e ON e.disabled_reason = r AND e.deleted_at IS NULL GROUP BY r`)
	if err != nil {
		return false, fmt.Errorf("count disabled endpoints: %w", err)
	}
	var reason string
	var n float64
	_, err = pgx.ForEachRow(rows, []any{&reason, &n}, func() error {
		d.metrics.disabled.WithLabelValues(reason).Set(n)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("count disabled endpoints: %w", err)
	}
	return false, nil
}
