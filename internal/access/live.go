package access

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Live tells which of the keys, which were authenticated before, are still neither
// revoked nor expired.
func (a *Authenticator) Live(ctx context.Context, keyIDs []string) (map[string]bool, error) {
	rows, err := a.pool.Query(ctx, `
		SELECT id FROM api_keys WHERE id = ANY ($1) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`, keyIDs)
	if err != nil {
		return nil, fmt.Errorf("look up api keys: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look up api keys: %w", err)
	}
	live := make(map[string]bool, len(ids))
	for _, id := range ids {
		live[id] = true
	}
	return live, nil
}
