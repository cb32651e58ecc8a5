package postgres_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func TestPoolsShowTheirConnections(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(postgres.Pools{"write": pool})
	value := func(name, state string) float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				labels := map[string]string{}
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				if f.GetName() == name && labels["pool"] == "write" && labels["state"] == state {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
		t.Fatalf("there is no %s of %q", name, state)
		return 0
	}
	held, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := value("payments_postgres_pool_connections", "acquired"); got != 1 {
		t.Errorf("%v acquired", got)
	}
	held.Release()
	if acquired, most := value("payments_postgres_pool_acquired_total", ""), value("payments_postgres_pool_connections_max", ""); acquired < 1 || most != 24 {
		t.Errorf("%v taken, at most %v", acquired, most)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
