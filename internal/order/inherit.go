package order

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// inheritBatch bounds the rows, and the locks, of one transaction of Inherit.
const inheritBatch = 1000

// Inherited is what one call of Inherit did.
type Inherited struct {
	Payments int64
	// Twice are payments that share a reference of the provider with another one. They
	// are left without an account: one of each two has taken what belongs to the other.
	Twice []string
	More  bool
}

// Inherit records the account of payments from before accounts were recorded, a batch a
// call: that of the account that the service was first used with since. Payments that a
// saga has in hand are recorded by their sagas.
func (s *Service) Inherit(ctx context.Context) (done Inherited, err error) {
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		var account string
		var after []string
		err := tx.QueryRow(ctx, `
			SELECT account, inherited_up_to FROM provider_accounts WHERE inherits AND inherited_at IS NULL FOR UPDATE SKIP LOCKED`).
			Scan(&account, &after)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the provider's account: %w", err)
		}
		var last []string
		var seen int64
		// A payment that was made before the account was first used, and that the provider knows.
		err = tx.QueryRow(ctx, `
			WITH batch AS MATERIALIZED (
				SELECT merchant_id, id, provider_account IS NULL AND created_at < (SELECT first_used_at FROM provider_accounts WHERE account = $1)
					AND (authorization_reference IS NOT NULL OR failure_step = $4) AS heir, authorization_reference, capture_reference
				FROM payments WHERE (merchant_id, id) > ($2, $3) ORDER BY merchant_id, id LIMIT $5),
			twice AS MATERIALIZED (
				SELECT b.merchant_id, b.id FROM batch b WHERE b.heir AND (
					EXISTS (SELECT FROM payments o WHERE o.authorization_reference = b.authorization_reference AND o.id <> b.id
						AND coalesce(o.provider_account, $1) = $1)
					OR EXISTS (SELECT FROM payments o WHERE o.capture_reference = b.capture_reference AND o.id <> b.id
						AND coalesce(o.provider_account, $1) = $1))),
			free AS MATERIALIZED (
				SELECT p.merchant_id, p.id FROM payments p JOIN batch b USING (merchant_id, id)
				WHERE b.heir AND (p.merchant_id, p.id) NOT IN (TABLE twice)
				ORDER BY p.merchant_id, p.id FOR NO KEY UPDATE OF p SKIP LOCKED),
			filled AS (
				UPDATE payments p SET provider_account = $1 FROM free
				WHERE p.merchant_id = free.merchant_id AND p.id = free.id AND p.provider_account IS NULL RETURNING 1)
			SELECT (SELECT ARRAY[merchant_id, id] FROM batch ORDER BY merchant_id DESC, id DESC LIMIT 1), (SELECT count(*) FROM batch),
				(SELECT count(*) FROM filled), coalesce((SELECT array_agg(id ORDER BY id) FROM twice), '{}')`,
			account, after[0], after[1], stepAuthorize, inheritBatch).Scan(&last, &seen, &done.Payments, &done.Twice)
		if err != nil {
			return fmt.Errorf("record the account of earlier payments: %w", err)
		}
		if done.More = seen == inheritBatch; last == nil {
			last = after
		}
		if _, err := tx.Exec(ctx, `
			UPDATE provider_accounts SET inherited_up_to = $2, inherited_at = CASE WHEN NOT $3 THEN now() END WHERE account = $1`,
			account, last, done.More); err != nil {
			return fmt.Errorf("record the account of earlier payments: %w", err)
		}
		return nil
	})
	if err != nil {
		return Inherited{}, err
	}
	return done, nil
}
