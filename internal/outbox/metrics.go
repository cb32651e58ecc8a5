package outbox

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	published, errors, claims, fenced prometheus.Counter
	wanted, owned, failing            prometheus.Gauge
	oldest                            *prometheus.GaugeVec // without labels: it has no series before it is measured
	held                              *prometheus.GaugeVec
	unproven, lost                    *prometheus.GaugeVec // without labels: absent until they are measured
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		published: counter("payments_outbox_published_total", "Messages that the broker has acknowledged, repetitions included."),
		errors:    counter("payments_relay_publish_errors_total", "Batches of a shard that were not acknowledged and are sent again."),
		claims:    counter("payments_relay_shards_claimed_total", "Shards that this process has taken, each time anew."),
		fenced:    counter("payments_relay_fenced_total", "Checkpoints that were refused, as another had taken the shard."),
		wanted:    gauge("payments_relay_shards", "Shards of the outbox."),
		owned:     gauge("payments_relay_shards_owned", "Shards that this process publishes."),
		failing:   gauge("payments_relay_shards_failing", "Shards of this process whose last batch was not acknowledged."),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_outbox_oldest_unpublished_seconds", Help: "Age of the oldest committed message that no checkpoint covers.",
		}, nil),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_postgres_xmin_held_seconds", Help: "Age of the oldest transaction that keeps dead rows from being removed.",
		}, []string{"by"}),
		unproven: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_outbox_unproven", Help: "1 while the relay stops, since its checkpoints are of another database server; else 0.",
		}, nil),
		lost: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_outbox_lost_messages", Help: "Messages that were published and whose commits the database has lost, until a person settles them.",
		}, nil),
	}
	for _, c := range []prometheus.Collector{
		m.published, m.errors, m.claims, m.fenced, m.wanted, m.owned, m.failing, m.oldest, m.held, m.unproven, m.lost,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
