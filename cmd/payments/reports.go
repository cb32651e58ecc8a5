package main

import (
	"context"
	"time"

	"payments/internal/report"
)

// refreshReports looks each second whether a refresh is due or was asked for. The
// views stand beside the write model, which they read.
func (s *service) refreshReports(ctx context.Context) error {
	const loop = "reports"
	r, err := report.NewRefresher(s.write, report.RefresherConfig{
		Interval: s.Reports.Interval, Timeout: s.Reports.Timeout, Heartbeat: func() { s.monitor.Heartbeat(loop) }, Registerer: s.registry, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.loop(ctx, loop, time.Second, r.RunOnce, nil)
	return nil
}
