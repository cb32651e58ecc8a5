package order

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/provider"
)

// Notified makes a payment's saga that waits due at once, so that it asks the
// provider sooner. Nothing is taken from the notification itself: it may be
// late, out of order, or of an operation that is known. A saga in a worker's
// hands is left alone, and so is one that waits for a person.
func (s *Service) Notified(ctx context.Context, tx pgx.Tx, n provider.Notification) error {
	// payments_id finds the payment, the unique index on definition and subject its saga.
	_, err := tx.Exec(ctx, `
		UPDATE sagas s SET due_at = now()
		FROM payments p
		WHERE p.id = $1 AND s.merchant_id = p.merchant_id AND s.definition = $2 AND s.subject = p.order_id
			AND s.owner IS NULL AND s.due_at > now()`, n.Reference, s.definition.Name)
	if err != nil {
		return fmt.Errorf("make the notified saga due: %w", err)
	}
	return nil
}
