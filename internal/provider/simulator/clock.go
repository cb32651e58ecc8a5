package simulator

import "time"

// Clock is the time of the ledger, of delays and of faults' ends.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in a goroutine of its own once d has passed; stop tells
	// whether it prevented that.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}
