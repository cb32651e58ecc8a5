package webhook

import (
	"math/rand/v2"
	"time"
)

// schedule is what is waited before the second and each later attempt, of which
// the last is made a little more than three days after the first: the example
// schedule of Standard Webhooks 1.0.
var schedule = [...]time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// Attempts is how many attempts a delivery has before it has failed.
const Attempts = len(schedule) + 1

// pause is 0 when the tries, of which there has been at least one, are used up.
// Jitter of a tenth either way keeps deliveries of one outage from coming at once.
func pause(tries int) time.Duration {
	if tries > len(schedule) {
		return 0
	}
	d := schedule[tries-1]
	return d - d/10 + rand.N(d/5+1)
}
