package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/postgres"
)

// Retention is how long a settled delivery is kept, with its attempts, for the log and for
// redelivery, and how long what a disabled endpoint missed can be redelivered. It is far
// longer than all attempts together take.
const Retention = 30 * 24 * time.Hour

const reapBatch = 1000

// Reap forgets one batch each of the deliveries that were settled longer than Retention
// ago, of the missed events of that age, and of what deleted endpoints leave behind, then
// the deleted endpoints that have nothing left, and secrets that have ended. A pending
// delivery is kept however long its endpoint is disabled. A full batch means that there
// may be more.
func Reap(ctx context.Context, pool *pgxpool.Pool) (again bool, err error) {
	err = postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		again = false
		for _, sql := range []string{
			`DELETE FROM webhook_deliveries WHERE (merchant_id, id) IN (
				SELECT merchant_id, id FROM webhook_deliveries WHERE settled_at < now() - $1::interval
				ORDER BY settled_at LIMIT $2)`, // by webhook_deliveries_settled
			`DELETE FROM webhook_missed WHERE (merchant_id, endpoint_id, event_id) IN (
				SELECT merchant_id, endpoint_id, event_id FROM webhook_missed WHERE missed_at < now() - $1::interval
				ORDER BY missed_at LIMIT $2)`, // by webhook_missed_age
			`DELETE FROM webhook_deliveries WHERE (merchant_id, id) IN (
				SELECT d.merchant_id, d.id FROM webhook_endpoints e JOIN webhook_deliveries d ON d.merchant_id = e.merchant_id AND d.endpoint_id = e.id
				WHERE e.deleted_at < now() - $1::interval AND d.settled_at IS NULL LIMIT $2)`, // by webhook_deliveries_due
		} {
			tag, err := tx.Exec(ctx, sql, Retention, reapBatch)
			if err != nil {
				return err
			}
			again = again || tag.RowsAffected() == reapBatch
		}
		_, err := tx.Exec(ctx, `DELETE FROM webhook_secrets WHERE expires_at < now()`)
		_, err2 := tx.Exec(ctx, `
			DELETE FROM webhook_endpoints e WHERE deleted_at < now() - $1::interval
				AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.merchant_id = e.merchant_id AND d.endpoint_id = e.id)`, Retention)
		return errors.Join(err, err2)
	})
	if err != nil {
		return false, fmt.Errorf("reap webhooks: %w", err)
	}
	return again, nil
}
