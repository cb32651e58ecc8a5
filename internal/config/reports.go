package config

import "time"

// Reports is how their views are refreshed.
type Reports struct {
	Interval time.Duration // from the begin of one refresh to that of the next
	Timeout  time.Duration // of one refresh
}

func (r *reader) reports() Reports {
	return Reports{
		Interval: r.duration("PAYMENTS_REPORTS_INTERVAL", 5*time.Minute, time.Second, 24*time.Hour),
		Timeout:  r.duration("PAYMENTS_REPORTS_TIMEOUT", 30*time.Minute, time.Second, 24*time.Hour),
	}
}
