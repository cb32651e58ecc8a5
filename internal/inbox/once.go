package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Once records on the caller's transaction that a consumer took in a message
// that came by another way than the log, and is fresh the first time alone. A
// second taker waits until the first has committed or rolled back. An id of a
// day that is no longer kept (Maintain) is fresh again.
func Once(ctx context.Context, tx pgx.Tx, consumer, id string) (fresh bool, err error) {
	tag, err := tx.Exec(ctx, `
		INSERT INTO inbox_messages (consumer, made_on, message_id) VALUES ($1, $2, $3)
		ON CONFLICT DO NOTHING`, consumer, madeOn(id), id)
	if err != nil {
		return false, fmt.Errorf("record message for %s: %w", consumer, err)
	}
	return tag.RowsAffected() == 1, nil
}
