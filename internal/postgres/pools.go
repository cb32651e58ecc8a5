package postgres

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Pools shows the connections of a process's pools, by the pool's name.
type Pools map[string]*pgxpool.Pool

var (
	poolConnections = prometheus.NewDesc("payments_postgres_pool_connections",
		"Connections of the pool: acquired, idle or being made.", []string{"pool", "state"}, nil)
	poolLimit = prometheus.NewDesc("payments_postgres_pool_connections_max",
		"Connections that the pool has at most.", []string{"pool"}, nil)
	poolAcquired = prometheus.NewDesc("payments_postgres_pool_acquired_total",
		"Connections taken from the pool.", []string{"pool"}, nil)
	poolWaited = prometheus.NewDesc("payments_postgres_pool_waited_total",
		"Connections taken from the pool after a wait, since none was idle.", []string{"pool"}, nil)
	poolCanceled = prometheus.NewDesc("payments_postgres_pool_canceled_total",
		"Waits for a connection that were given up.", []string{"pool"}, nil)
	poolSeconds = prometheus.NewDesc("payments_postgres_pool_acquire_seconds_total",
		"Time that taking connections from the pool took.", []string{"pool"}, nil)
)

// Describe is of prometheus.Collector.
func (p Pools) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolConnections, poolLimit, poolAcquired, poolWaited, poolCanceled, poolSeconds} {
		to <- d
	}
}

// Collect is of prometheus.Collector.
func (p Pools) Collect(to chan<- prometheus.Metric) {
	for name, pool := range p {
		s := pool.Stat()
		for state, n := range map[string]int32{"acquired": s.AcquiredConns(), "idle": s.IdleConns(), "constructing": s.ConstructingConns()} {
			to <- prometheus.MustNewConstMetric(poolConnections, prometheus.GaugeValue, float64(n), name, state)
		}
		to <- prometheus.MustNewConstMetric(poolLimit, prometheus.GaugeValue, float64(s.MaxConns()), name)
		to <- prometheus.MustNewConstMetric(poolAcquired, prometheus.CounterValue, float64(s.AcquireCount()), name)
		to <- prometheus.MustNewConstMetric(poolWaited, prometheus.CounterValue, float64(s.EmptyAcquireCount()), name)
		to <- prometheus.MustNewConstMetric(poolCanceled, prometheus.CounterValue, float64(s.CanceledAcquireCount()), name)
		to <- prometheus.MustNewConstMetric(poolSeconds, prometheus.CounterValue, s.AcquireDuration().Seconds(), name)
	}
}
