package webhook

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// claimed is a delivery under this dispatcher's lease.
type claimed struct {
	merchantID, id, endpointID string
	url                        string
	sealedURL                  []byte
	body                       []byte
	tries                      int
	epoch                      int64
	ciphertexts                [][]byte // of the live secrets, the current one first
	numbers                    []int32
}

// waiting are the endpoints that have deliveries due, the longest waiting first. Its cost grows
// with them and not with what waits: webhook_deliveries_due is walked from endpoint to endpoint.
func (d *Dispatcher) waiting(ctx context.Context) ([]waiting, error) {
	rows, err := d.pool.Query(ctx, `
		WITH RECURSIVE waiting AS (
			(SELECT merchant_id, endpoint_id FROM webhook_deliveries WHERE due_at IS NOT NULL ORDER BY merchant_id, endpoint_id LIMIT 1)
			UNION ALL
			SELECT n.merchant_id, n.endpoint_id FROM waiting w CROSS JOIN LATERAL (
				SELECT merchant_id, endpoint_id FROM webhook_deliveries
				WHERE due_at IS NOT NULL AND (merchant_id, endpoint_id) > (w.merchant_id, w.endpoint_id)
				ORDER BY merchant_id, endpoint_id LIMIT 1) n
		)
		SELECT e.merchant_id, e.id, n.due, e.failing_since IS NOT NULL
		FROM waiting w JOIN webhook_endpoints e ON e.merchant_id = w.merchant_id AND e.id = w.endpoint_id CROSS JOIN LATERAL (
			SELECT count(*) AS due, min(due_at) AS oldest FROM (
				SELECT due_at FROM webhook_deliveries
				WHERE merchant_id = e.merchant_id AND endpoint_id = e.id AND due_at <= now()
				ORDER BY due_at LIMIT $1) first) n
		WHERE e.deleted_at IS NULL AND e.disabled_at IS NULL AND n.due > 0
		ORDER BY n.oldest, e.id`, perEndpoint)
	if err != nil {
		return nil, fmt.Errorf("look for due deliveries: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w waiting, err error) {
		return w, row.Scan(&w.merchantID, &w.endpointID, &w.due, &w.failing)
	})
	if err != nil {
		return nil, fmt.Errorf("look for due deliveries: %w", err)
	}
	return all, nil
}

// claim takes as many due deliveries of each endpoint as it is granted, the oldest first.
func (d *Dispatcher) claim(ctx context.Context, grants []waiting) ([]claimed, error) {
	if len(grants) == 0 {
		return nil, nil
	}
	merchants, endpoints, counts := make([]string, len(grants)), make([]string, len(grants)), make([]int32, len(grants))
	for i, g := range grants {
		merchants[i], endpoints[i], counts[i] = g.merchantID, g.endpointID, int32(g.due) //nolint:gosec // at most perEndpoint
	}
	rows, err := d.pool.Query(ctx, `
		WITH due AS (
			SELECT n.merchant_id, n.id FROM unnest($3::text[], $4::text[], $5::int[]) AS g (merchant_id, endpoint_id, n) CROSS JOIN LATERAL (
				SELECT merchant_id, id FROM webhook_deliveries
				WHERE merchant_id = g.merchant_id AND endpoint_id = g.endpoint_id AND due_at <= now()
				ORDER BY due_at LIMIT g.n) n
		), held AS (
			SELECT d.merchant_id, d.id FROM webhook_deliveries d JOIN due USING (merchant_id, id)
			WHERE d.due_at <= now() FOR UPDATE OF d SKIP LOCKED
		)
		UPDATE webhook_deliveries d SET owner = $1, epoch = d.epoch + 1, due_at = now() + $2::interval
		FROM held, webhook_endpoints e
		WHERE d.merchant_id = held.merchant_id AND d.id = held.id AND e.merchant_id = d.merchant_id AND e.id = d.endpoint_id
			AND e.deleted_at IS NULL AND e.disabled_at IS NULL
		RETURNING d.merchant_id, d.id, d.endpoint_id, e.url, e.url_ciphertext, d.body, d.tries, d.epoch,
			(SELECT array_agg(s.ciphertext ORDER BY s.number DESC) FROM webhook_secrets s
			 WHERE s.merchant_id = d.merchant_id AND s.endpoint_id = d.endpoint_id AND (s.expires_at IS NULL OR s.expires_at > now())),
			(SELECT array_agg(s.number ORDER BY s.number DESC) FROM webhook_secrets s
			 WHERE s.merchant_id = d.merchant_id AND s.endpoint_id = d.endpoint_id AND (s.expires_at IS NULL OR s.expires_at > now()))`,
		d.Owner, lease, merchants, endpoints, counts)
	if err != nil {
		return nil, fmt.Errorf("claim deliveries: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c claimed, err error) {
		return c, row.Scan(&c.merchantID, &c.id, &c.endpointID, &c.url, &c.sealedURL, &c.body, &c.tries, &c.epoch, &c.ciphertexts, &c.numbers)
	})
	if err != nil {
		return nil, fmt.Errorf("claim deliveries: %w", err)
	}
	return all, nil
}
