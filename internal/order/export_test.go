package order

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Queued is how many orders of the merchant wait for a transaction to take them.
func (s *Service) Queued(merchantID string) int { return s.placings.Waiting(merchantID) }

// WriteOrder writes an order as a commit's unit does.
func WriteOrder(ctx context.Context, tx pgx.Tx, merchantID, id string) error {
	now := time.Now()
	u := &unit{tx: tx, merchantID: merchantID, orders: map[string]*orderRow{id: {id: id, status: orderFailed, sequence: 1, at: now, changed: true}}}
	return u.write(ctx)
}
