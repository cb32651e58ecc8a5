package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	applied *prometheus.CounterVec
	// Of the blocked keys. They have no labels, and no series before they are measured.
	keys, oldest, conflicts *prometheus.GaugeVec
}

func newMetrics(consumer string, reg prometheus.Registerer) (metrics, error) {
	m := metrics{
		applied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_inbox_applied_total", Help: "Messages taken in, by what became of them.",
		}, []string{"result"}),
		keys: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_inbox_blocked_keys", Help: "Keys that a dead letter blocks until an operator acts; every process of a consumer reports all of them.",
		}, nil),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_inbox_blocked_oldest_seconds", Help: "How long the oldest blocked key has waited.",
		}, nil),
		conflicts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_inbox_conflicting_keys", Help: "Blocked keys whose messages contradict what was applied of them.",
		}, nil),
	}
	for _, result := range []string{"applied", "duplicate", "dropped", "dead_letter"} {
		m.applied.WithLabelValues(result)
	}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"consumer": consumer}, reg)
	for _, metric := range []prometheus.Collector{m.applied, m.keys, m.oldest, m.conflicts} {
		if err := reg.Register(metric); err != nil {
			return m, fmt.Errorf("register inbox %s: %w", consumer, err)
		}
	}
	return m, nil
}

func (m metrics) count(o outcome) {
	m.applied.WithLabelValues("applied").Add(float64(o.applied))
	m.applied.WithLabelValues("duplicate").Add(float64(o.duplicate))
	m.applied.WithLabelValues("dropped").Add(float64(o.dropped))
	m.applied.WithLabelValues("dead_letter").Add(float64(o.deadLetters))
}

// Measure sets the gauges of blocked keys from the table, so that they count what other
// processes block, replay and discard.
func (in *Inbox) Measure(ctx context.Context) error {
	var keys, seconds, conflicts float64
	err := in.pool.QueryRow(ctx, `
		SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(parked_at)), 0)::float8, count(*) FILTER (WHERE fingerprint = $2)
		FROM inbox_parked_keys WHERE consumer = $1`, in.consumer, fingerprintConflict).Scan(&keys, &seconds, &conflicts)
	if err != nil {
		return fmt.Errorf("count blocked keys of %s: %w", in.consumer, err)
	}
	in.metrics.keys.WithLabelValues().Set(keys)
	in.metrics.conflicts.WithLabelValues().Set(conflicts)
	in.metrics.oldest.WithLabelValues().Set(max(seconds, 0))
	return nil
}

// Offsets are behind the last message that was taken in, by partition, as the
// database has them: what a consumer that is dead has left.
func (in *Inbox) Offsets(ctx context.Context, topic string) (map[int]int64, error) {
	rows, err := in.pool.Query(ctx, `
		SELECT partition, next_offset FROM inbox_offsets
		WHERE consumer = $1 AND topic = $2 AND next_offset IS NOT NULL`, in.consumer, topic)
	if err != nil {
		return nil, fmt.Errorf("read offsets of %s: %w", in.consumer, err)
	}
	offsets := map[int]int64{}
	var partition int
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&partition, &next}, func() error {
		offsets[partition] = next
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read offsets of %s: %w", in.consumer, err)
	}
	return offsets, nil
}
