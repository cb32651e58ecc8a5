package webhook

import (
	"context"
	"fmt"
	"time"
)

// madeInFuture finds an endpoint that was made before the clock was set back: it would get
// no event until its created_at.
const madeInFuture = `e.created_at > now() + interval '5 seconds'`

// waitsTooLong finds a delivery d that waits for longer than its schedule, or the lease of
// a dispatcher, can be: the database's clock was set back (a failover to a machine that is
// behind, a corrected clock). $1 is the lease, $2 the longest wait by the tries made.
const (
	longestWait  = `CASE WHEN d.owner IS NULL THEN ($2::interval[])[least(d.tries + 1, cardinality($2::interval[]))] ELSE $1::interval END`
	waitsTooLong = `d.due_at > now() + ` + longestWait + ` + interval '5 seconds'`
)

func longestWaits() []time.Duration {
	longest := make([]time.Duration, len(schedule)+1) // what was not tried is due at once
	for i, pause := range schedule {
		longest[i+1] = pause + pause/10
	}
	return longest
}

// mendTimes lets deliveries wait for no longer than that, and endpoints be made now. A lease
// that begins again ends later than its holder believes, so that no attempt is made beside
// another.
func (d *Dispatcher) mendTimes(ctx context.Context) error {
	if _, err := d.pool.Exec(ctx, `UPDATE webhook_endpoints e SET created_at = now() WHERE `+madeInFuture); err != nil {
		return fmt.Errorf("mend the times of endpoints: %w", err)
	}
	// webhook_deliveries_due serves it: pending rows alone are read.
	tag, err := d.pool.Exec(ctx, `UPDATE webhook_deliveries d SET due_at = now() + `+longestWait+` WHERE d.due_at IS NOT NULL AND `+waitsTooLong, lease, longestWaits())
	if err != nil {
		return fmt.Errorf("shorten the waits of deliveries: %w", err)
	}
	d.Log.WarnContext(ctx, "the database's clock was set back: deliveries wait no longer than their schedule", "deliveries", tag.RowsAffected())
	return nil
}
