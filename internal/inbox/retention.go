package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// ahead is how many days have their partitions before they begin. An id of a day
// without one goes to the default partition, and is moved when its day is made.
const ahead = 3

// Maintain makes the partitions of the ids of today and the days ahead, and drops
// those of days that ended longer than keep ago; keep of 0 keeps all. It waits
// 200 ms at most for a lock, and then gives way with an error that
// postgres.Unavailable knows: nothing is lost by trying again later. When there is
// nothing to make or drop it locks nothing.
//
// keep is for all consumers of the database. An offset set back further than that
// needs consumers that are Sequenced, or that may miss what is older (DropOld).
func Maintain(ctx context.Context, pool *pgxpool.Pool, now time.Time, keep time.Duration) error {
	today := now.UTC().Truncate(24 * time.Hour)
	if _, err := pool.Exec(ctx, `SELECT inbox_keep_days($1, $2)`, today.AddDate(0, 0, -1), today.AddDate(0, 0, ahead)); err != nil {
		return fmt.Errorf("make partitions of ids: %w", err)
	}
	if keep <= 0 {
		return nil
	}
	before := now.Add(-keep).UTC().Truncate(24 * time.Hour)
	if _, err := pool.Exec(ctx, `SELECT inbox_forget_days($1)`, before); err != nil {
		return fmt.Errorf("drop partitions of ids: %w", err)
	}
	return nil
}
