package saga

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	live     *prometheus.GaugeVec
	paused   *prometheus.GaugeVec // this and oldest have no labels, and no series before they are measured
	orphaned *prometheus.GaugeVec
	waiting  *prometheus.GaugeVec
	pending  *prometheus.GaugeVec
	oldest   *prometheus.GaugeVec
	stepAge  *prometheus.GaugeVec
	open     prometheus.Gauge
	circuit  *prometheus.GaugeVec
	allowed  prometheus.Gauge
	finished *prometheus.CounterVec
	fenced   prometheus.Counter
	errors   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		live: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_sagas", Help: "Sagas that are live or parked.",
		}, []string{"definition", "state", "step"}),
		paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_sagas_paused", Help: "Live sagas that an operator has paused.",
		}, nil),
		orphaned: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_sagas_orphaned", Help: "Live sagas of a version that no running worker holds.",
		}, []string{"definition", "version"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_sagas_waiting", Help: "Live sagas whose call lacks something, by what it is, such as credentials for an account at the provider.",
		}, []string{"for"}),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_sagas_pending", Help: "Live sagas whose operation the provider has and has not decided.",
		}, []string{"definition", "step"}),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_saga_oldest_due_seconds", Help: "How long the longest waiting due saga has waited for a worker.",
		}, nil),
		stepAge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_saga_step_age_seconds",
			Help: "How long the saga that has been at this step longest has been there; without those that await a merchant, are paused, wait for credentials or are pending at the provider.",
		}, []string{"definition", "step"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_saga_circuit_open", Help: "1 while this process makes no calls to the provider, which does not answer, but one at a time that asks whether it is back.",
		}),
		circuit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_saga_circuit_state", Help: "1 for the state of this process's circuit to the provider: closed, half_open (one call asks whether the provider is back) or open.",
		}, []string{"state"}),
		allowed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_saga_calls_allowed", Help: "Calls to the provider that this process makes at once at most, by how the last ones were answered.",
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
	reg.MustRegister(m.live, m.paused, m.orphaned, m.waiting, m.pending, m.oldest, m.stepAge, m.open, m.circuit, m.allowed, m.finished, m.fenced, m.errors)
	return m
}

func (w *Worker) ended(i *Instance) {
	if !i.live() {
		w.metrics.finished.WithLabelValues(i.definition, string(i.State)).Inc()
	}
}

// Measure counts the live and parked sagas of every process, from the table.
func (w *Worker) Measure(ctx context.Context) (again bool, err error) {
	if err := w.Register(ctx); err != nil {
		return false, err
	}
	// sagas_not_ended serves both queries.
	rows, err := w.pool.Query(ctx, `
		SELECT s.definition, s.version, s.state, s.step, count(*), count(s.paused_at),
			coalesce(extract(epoch FROM now() - min(s.due_at) FILTER (WHERE s.paused_at IS NULL)), 0)::float8,
			coalesce(extract(epoch FROM now() - min(s.step_since) FILTER (WHERE s.paused_at IS NULL AND NOT s.awaiting AND s.waits_for IS NULL AND NOT s.pending
				AND s.state <> 'parked')), 0)::float8,
			coalesce(bool_or(d.held_at BETWEEN now() - $1::interval AND now() + $1::interval), false), coalesce(s.waits_for, ''), count(*) FILTER (WHERE s.pending),
			count(*) FILTER (WHERE s.updated_at > now() + $2::interval)
		FROM sagas s LEFT JOIN saga_definitions d ON d.name = s.definition AND d.version = s.version
		WHERE s.state IN ('running', 'compensating', 'parked') GROUP BY 1, 2, 3, 4, s.waits_for`, heldFor, clockSlack)
	if err != nil {
		return false, fmt.Errorf("count sagas: %w", err)
	}
	type row struct {
		Definition    string
		Version       int
		State, Step   string
		Count, Paused int64
		Due, Age      float64 // seconds
		Held          bool
		WaitsFor      string
		Pending       int64
		Future        int64 // saved in it: the database's clock was set back
	}
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return false, fmt.Errorf("count sagas: %w", err)
	}
	w.metrics.live.Reset()
	w.metrics.orphaned.Reset()
	w.metrics.waiting.Reset()
	w.metrics.pending.Reset()
	w.metrics.stepAge.Reset()
	ages := map[[2]string]float64{}
	oldest, paused, future := 0.0, int64(0), int64(0)
	for _, c := range counts {
		w.metrics.live.WithLabelValues(c.Definition, c.State, c.Step).Add(float64(c.Count))
		oldest, paused, future = max(oldest, c.Due), paused+c.Paused, future+c.Future
		if c.WaitsFor != "" {
			w.metrics.waiting.WithLabelValues(c.WaitsFor).Add(float64(c.Count))
		}
		if c.Pending > 0 {
			w.metrics.pending.WithLabelValues(c.Definition, c.Step).Add(float64(c.Pending))
		}
		at := [2]string{c.Definition, c.Step}
		ages[at] = max(ages[at], c.Age)
		w.metrics.stepAge.WithLabelValues(c.Definition, c.Step).Set(ages[at])
		if !c.Held {
			w.metrics.orphaned.WithLabelValues(c.Definition, fmt.Sprint(c.Version)).Add(float64(c.Count))
			w.Log.ErrorContext(ctx, "sagas of a version that no running worker holds", "definition", c.Definition, "version", c.Version, "sagas", c.Count)
		}
	}
	w.metrics.oldest.WithLabelValues().Set(oldest)
	w.metrics.paused.WithLabelValues().Set(float64(paused))
	if future > 0 {
		return false, w.restartWaits(ctx)
	}
	return false, nil
}
