package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Once records on the caller's transaction that a consumer took in a message
// that came by another way than the log, and is fresh the first time alone. A
// second taker waits until the first has committed or rolled back. made has to be
// the same each time; if it is zero, it is what the id tells. An id of a day that is
// no longer kept (Maintain) is fresh again, and one that tells no time is kept for good.
func Once(ctx context.Context, tx pgx.Tx, consumer, id string, made time.Time) (fresh bool, err error) {
	day := made.UTC().Truncate(24 * time.Hour)
	if made.IsZero() {
		day = madeOn(id)
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO inbox_messages (consumer, made_on, message_id) VALUES ($1, $2, $3)
		ON CONFLICT DO NOTHING`, consumer, day, id)
	if err != nil {
		return false, fmt.Errorf("record message for %s: %w", consumer, err)
	}
	return tag.RowsAffected() == 1, nil
}
