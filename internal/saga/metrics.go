package saga

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	live     *prometheus.GaugeVec
	oldest   prometheus.Gauge
	finished *prometheus.CounterVec
	fenced   prometheus.Counter
	errors   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		live: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_sagas", Help: "Sagas that are live or parked.",
		}, []string{"definition", "state", "step"}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_saga_oldest_due_seconds", Help: "How long the longest waiting due saga has waited for a worker.",
		}),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_sagas_finished_total", Help: "Sagas that this process ended or parked.",
		}, []string{"definition", "state"}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "payments_saga_fenced_writes_total", Help: "Writes refused because another worker had taken the saga over.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "payments_saga_turn_errors_total", Help: "Turns of a saga that were rolled back and will be tried again.",
		}),
	}
	reg.MustRegister(m.live, m.oldest, m.finished, m.fenced, m.errors)
	return m
}

// Measure counts the live and parked sagas of every process, from the table.
func (w *Worker) Measure(ctx context.Context) (again bool, err error) {
	rows, err := w.pool.Query(ctx, `
		SELECT definition, state, step, count(*), coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8
		FROM sagas WHERE due_at IS NOT NULL OR state = 'parked' GROUP BY 1, 2, 3`)
	if err != nil {
		return false, fmt.Errorf("count sagas: %w", err)
	}
	type row struct {
		Definition, State, Step string
		Count                   int64
		Age                     float64
	}
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return false, fmt.Errorf("count sagas: %w", err)
	}
	w.metrics.live.Reset()
	oldest := 0.0
	for _, c := range counts {
		w.metrics.live.WithLabelValues(c.Definition, c.State, c.Step).Set(float64(c.Count))
		oldest = max(oldest, c.Age)
	}
	w.metrics.oldest.Set(oldest)
	return false, nil
}
