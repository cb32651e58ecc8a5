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

// Retention is how long a delivery is kept, with its attempts, for the log and
// for redelivery. It is far longer than all attempts together take.
const Retention = 30 * 24 * time.Hour

const reapBatch = 1000

// Reap forgets one batch of deliveries older than Retention, but those that an
// enabled endpoint still waits for, then the deleted endpoints that have none,
// and secrets that have ended. A full batch means that there may be more.
func Reap(ctx context.Context, pool *pgxpool.Pool) (again bool, err error) {
	err = postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		// webhook_deliveries_age gives the oldest.
		deliveries, err := tx.Exec(ctx, `
			DELETE FROM webhook_deliveries WHERE (merchant_id, id) IN (
				SELECT d.merchant_id, d.id FROM webhook_deliveries d JOIN webhook_endpoints e ON e.merchant_id = d.merchant_id AND e.id = d.endpoint_id
				WHERE d.created_at < now() - $1::interval AND (d.state <> 'pending' OR e.disabled_at IS NOT NULL OR e.deleted_at IS NOT NULL)
				ORDER BY d.created_at LIMIT $2)`, Retention, reapBatch)
		_, err2 := tx.Exec(ctx, `DELETE FROM webhook_secrets WHERE expires_at < now()`)
		_, err3 := tx.Exec(ctx, `
			DELETE FROM webhook_endpoints e WHERE deleted_at < now() - $1::interval
				AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.merchant_id = e.merchant_id AND d.endpoint_id = e.id)`, Retention)
		again = deliveries.RowsAffected() == reapBatch
		return errors.Join(err, err2, err3)
	})
	if err != nil {
		return false, fmt.Errorf("reap webhooks: %w", err)
	}
	return again, nil
}
