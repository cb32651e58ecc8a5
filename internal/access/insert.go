package access

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// InsertKey stores a key. One without a seed works at once, and nothing is recorded: it is for
// Keys and tests alone. It refuses a merchant that does not exist with CodeNotFound, and an expiry
// that is not to come with CodeInvalid.
func InsertKey(ctx context.Context, tx pgx.Tx, k Key) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO api_keys (id, merchant_id, role, holder, mac, networks, expires_at, api_version, seed, approved_at, replaces, overlap)
		VALUES ($1, nullif($2, ''), $3, nullif($4, ''), $5, $6::cidr[], $7, $8, $9, CASE WHEN $9::bytea IS NULL THEN now() END, nullif($10, ''),
			CASE WHEN $10 <> '' THEN $11::interval END)`,
		k.ID, k.MerchantID, k.Role, k.Holder, k.MAC, texts(k.Networks), k.ExpiresAt, k.APIVersion, k.Seed, k.Replaces, k.Overlap)
	switch postgres.Constraint(err) {
	case "api_keys_merchant_id_fkey":
		return payment.Errorf(payment.CodeNotFound, "There is no such merchant.").Because(err)
	case "api_keys_expiry": // by the database's clock, which may be past it when ours is not
		return errExpired().Because(err)
	}
	if err != nil {
		return fmt.Errorf("insert api key: %w", err)
	}
	return nil
}
