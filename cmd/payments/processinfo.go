package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"payments/internal/postgres"
)

// describeProcess registers what every process tells about itself: its runtime and which build it is.
func describeProcess(reg prometheus.Registerer) {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "payments_build_info", Help: "1, labeled with the version of the program and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

func (s *service) pools() postgres.Pools {
	p := postgres.Pools{"write": s.write, "engine": s.engine}
	if s.read != s.write {
		p["read"] = s.read
	}
	return p
}
