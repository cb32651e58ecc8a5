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

// claim takes up to limit due deliveries, every endpoint's first before any
// endpoint's second, and of no endpoint more than may be under way to it from one
// process. Its cost grows with the endpoints that wait for something, not with
// what waits: webhook_deliveries_due is walked from endpoint to endpoint.
func (d *Dispatcher) claim(ctx context.Context, limit int) ([]claimed, error) {
	rows, err := d.pool.Query(ctx, `
		WITH RECURSIVE waiting AS (
			(SELECT merchant_id, endpoint_id FROM webhook_deliveries WHERE due_at IS NOT NULL ORDER BY merchant_id, endpoint_id LIMIT 1)
			UNION ALL
			SELECT n.merchant_id, n.endpoint_id FROM waiting w CROSS JOIN LATERAL (
				SELECT merchant_id, endpoint_id FROM webhook_deliveries
				WHERE due_at IS NOT NULL AND (merchant_id, endpoint_id) > (w.merchant_id, w.endpoint_id)
				ORDER BY merchant_id, endpoint_id LIMIT 1) n
		), open AS (
			SELECT e.merchant_id, e.id, CASE WHEN e.failing_since IS NULL THEN $4::int ELSE 1 END - (
				SELECT count(*) FROM webhook_deliveries h
				WHERE h.merchant_id = e.merchant_id AND h.endpoint_id = e.id AND h.owner = $1 AND h.due_at > now()) AS room
			FROM waiting w JOIN webhook_endpoints e ON e.merchant_id = w.merchant_id AND e.id = w.endpoint_id
			WHERE e.deleted_at IS NULL AND e.disabled_at IS NULL
		), due AS (
			SELECT n.merchant_id, n.id FROM open o CROSS JOIN LATERAL (
				SELECT merchant_id, id, due_at, row_number() OVER (ORDER BY due_at) AS nth FROM webhook_deliveries
				WHERE merchant_id = o.merchant_id AND endpoint_id = o.id AND due_at <= now()
				ORDER BY due_at LIMIT greatest(o.room, 0)) n
			ORDER BY n.nth, n.due_at LIMIT $3
		), held AS (
			SELECT d.merchant_id, d.id FROM webhook_deliveries d JOIN due USING (merchant_id, id)
			WHERE d.due_at <= now() FOR UPDATE OF d SKIP LOCKED
		)
		UPDATE webhook_deliveries d SET owner = $1, epoch = d.epoch + 1, due_at = now() + $2::interval
		FROM held, webhook_endpoints e
		WHERE d.merchant_id = held.merchant_id AND d.id = held.id AND e.merchant_id = d.merchant_id AND e.id = d.endpoint_id
		RETURNING d.merchant_id, d.id, d.endpoint_id, e.url, e.url_ciphertext, d.body, d.tries, d.epoch,
			(SELECT array_agg(s.ciphertext ORDER BY s.number DESC) FROM webhook_secrets s
			 WHERE s.merchant_id = d.merchant_id AND s.endpoint_id = d.endpoint_id AND (s.expires_at IS NULL OR s.expires_at > now())),
			(SELECT array_agg(s.number ORDER BY s.number DESC) FROM webhook_secrets s
			 WHERE s.merchant_id = d.merchant_id AND s.endpoint_id = d.endpoint_id AND (s.expires_at IS NULL OR s.expires_at > now()))`,
		d.Owner, lease, limit, perEndpoint)
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
