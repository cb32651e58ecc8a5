package config

import "time"

// Reconcile is the scheduled comparison with the provider.
type Reconcile struct {
	Interval time.Duration // from the end of one to the begin of the next
	Days     int           // how far back each goes
	Rate     int           // requests to the provider in a second
}

func (r *reader) reconcile() Reconcile {
	return Reconcile{
		Interval: r.duration("PAYMENTS_RECONCILE_INTERVAL", 6*time.Hour, time.Second, 7*24*time.Hour),
		Days:     r.integer("PAYMENTS_RECONCILE_DAYS", 3, 1, 180),
		Rate:     r.integer("PAYMENTS_RECONCILE_RATE", 5, 1, 1000),
	}
}
