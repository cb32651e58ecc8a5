package audit

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// check is an invariant that one statement on the write model can tell. $1 of
// find is whether everything should be settled.
type check struct {
	invariant         int
	name, count, find string
}

// publishedByCursor is of an event o of the outbox that the relays' cursors count as published.
const publishedByCursor = `EXISTS (
	SELECT FROM outbox_cursors c
	WHERE c.shard = o.key_hash % (SELECT count(*)::int FROM outbox_shards) AND (pg_visible_in_snapshot(o.xid, c.done)
		OR c.page_snapshot IS NOT NULL AND pg_visible_in_snapshot(o.xid, c.page_snapshot) AND o.position <= c.page_position))`

var checks = []check{
	{
		1, "an idempotency key made one payment of its merchant", `SELECT count(*) FROM idempotency_keys`, `
		SELECT 'key ' || k.key || ' of ' || k.merchant_id || ' names ' || k.resource_id || ', which does not exist'
		FROM idempotency_keys k LEFT JOIN payments p ON p.merchant_id = k.merchant_id AND p.id = k.resource_id
		WHERE p.id IS NULL AND k.resource_id LIKE 'pay\_%' AND $1::bool IS NOT NULL
		UNION ALL
		SELECT resource_id || ' was made by ' || count(*) || ' keys' FROM idempotency_keys
		WHERE resource_id NOT LIKE 'whe\_%' -- each rotation of an endpoint's secret has a key of its own
		GROUP BY resource_id HAVING count(*) > 1
		UNION ALL
		SELECT 'payment ' || p.id || ' has no key' FROM payments p
		WHERE p.created_at > now() - interval '31 days' AND NOT EXISTS (
			SELECT FROM idempotency_keys k WHERE k.merchant_id = p.merchant_id AND k.resource_id = p.id)`,
	},
	{
		1, "an order reference is never paid twice", `SELECT count(DISTINCT (merchant_id, reference)) FROM orders`, `
		SELECT 'reference ' || reference_key(reference) || ' of ' || merchant_id || ' has ' || count(*) || ' live or won orders'
		FROM orders WHERE status IN ('placed', 'confirmed') AND NOT reference_repeated AND $1::bool IS NOT NULL
		GROUP BY merchant_id, reference_key(reference) HAVING count(*) > 1`,
	},
	{
		1, "an order has its payment, saga and lines", `SELECT count(*) FROM orders`, `
		SELECT 'order ' || o.id || ' misses its payment, its saga or its lines' FROM orders o
		WHERE $1::bool IS NOT NULL AND NOT (
			EXISTS (SELECT FROM payments p WHERE p.merchant_id = o.merchant_id AND p.order_id = o.id)
			AND EXISTS (SELECT FROM sagas s WHERE s.merchant_id = o.merchant_id AND s.subject = o.id)
			AND EXISTS (SELECT FROM order_lines l WHERE l.merchant_id = o.merchant_id AND l.order_id = o.id))`,
	},
	{
		4, "stock is conserved", `SELECT count(*) FROM stock`, `
		SELECT 'stock ' || s.sku || ' of ' || s.merchant_id || ' says reserved ' || s.reserved || ', sold ' || s.sold
			|| '; its orders say ' || coalesce(r.reserved, 0) || ', ' || coalesce(r.sold, 0)
		FROM stock s LEFT JOIN (
			SELECT merchant_id, sku, coalesce(sum(quantity) FILTER (WHERE state = 'reserved'), 0) AS reserved,
				coalesce(sum(quantity) FILTER (WHERE state = 'sold'), 0) AS sold
			FROM stock_reservations GROUP BY merchant_id, sku) r ON r.merchant_id = s.merchant_id AND r.sku = s.sku
		WHERE $1::bool IS NOT NULL AND (s.received <> s.on_hand + s.reserved + s.sold OR least(s.on_hand, s.reserved, s.sold) < 0
			OR s.reserved <> coalesce(r.reserved, 0) OR s.sold <> coalesce(r.sold, 0))`,
	},
	{
		4, "a reservation has a live or won order", `SELECT count(*) FROM stock_reservations`, `
		SELECT 'order ' || o.id || ' is ' || o.status || ', its ' || r.sku || ' is ' || r.state
		FROM stock_reservations r JOIN orders o ON o.merchant_id = r.merchant_id AND o.id = r.order_id
		WHERE $1::bool IS NOT NULL AND (o.status = 'confirmed') <> (r.state = 'sold')
			OR o.status IN ('failed', 'canceled') AND r.state <> 'released'`,
	},
	{
		5, "what happens once is told once", `SELECT count(*) FROM outbox`, `
		SELECT 'order ' || key || ' tells ' || n || ' times of ' || type FROM (
			SELECT key, (SELECT headers[i + 1] FROM generate_subscripts(headers, 1) i WHERE i % 2 = 1 AND headers[i] = 'ce_type') AS type, count(*) AS n
			FROM outbox GROUP BY merchant_id, key, 2) e
		WHERE $1::bool IS NOT NULL AND n > 1 AND type NOT LIKE 'refund.%' AND type <> 'payment.review_required'`,
	},
	{
		// What retention has dropped is counted by outbox_dropped, which took only keys without a gap.
		5, "an order's events are 1, 2, 3 … without a gap", `SELECT count(*) FROM outbox`, `
		SELECT 'order ' || o.id || ' is at ' || o.sequence || ', had ' || coalesce(d.sequence, 0) || ' events dropped and has '
			|| coalesce(e.n, 0) || ', ' || coalesce(e.low, 0) || ' to ' || coalesce(e.high, 0)
		FROM orders o LEFT JOIN outbox_dropped d ON d.key = o.id LEFT JOIN (
			SELECT key, count(*) AS n, min(sequence) AS low, max(sequence) AS high FROM outbox
			WHERE position >= (SELECT coalesce(max(high), 0) FROM outbox_partitions WHERE parent = 'outbox' AND sealed)
			GROUP BY key) e ON e.key = o.id
		WHERE $1::bool IS NOT NULL AND (coalesce(d.sequence, 0) + coalesce(e.n, 0) <> o.sequence
			OR e.low <> coalesce(d.sequence, 0) + 1 OR e.high <> o.sequence)`,
	},
	{
		// What retention has dropped was published: it waits for every shard.
		6, "every event is published", `SELECT count(*) FROM outbox`, `
		SELECT 'event ' || o.id || ' of ' || o.created_at || ' is not published' FROM outbox o
		WHERE ($1::bool OR o.created_at < now() - interval '1 minute') AND NOT ` + publishedByCursor,
	},
	{
		2, "the refunds of a payment add up and never exceed its capture", `SELECT count(*) FROM refunds`, `
		SELECT 'payment ' || p.id || ' has ' || p.amount_refunded || ' refunded, ' || p.amount_refunding || ' under way, '
			|| p.amount_captured || ' captured; its refunds say ' || r.done || ', ' || r.pending
		FROM payments p LEFT JOIN LATERAL (
			SELECT coalesce(sum(amount) FILTER (WHERE status = 'succeeded'), 0) AS done,
				coalesce(sum(amount) FILTER (WHERE status = 'pending'), 0) AS pending
			FROM refunds WHERE merchant_id = p.merchant_id AND payment_id = p.id) r ON true
		WHERE $1::bool IS NOT NULL AND (p.amount_refunded <> r.done OR p.amount_refunding <> r.pending
			OR p.amount_refunded + p.amount_refunding > p.amount_captured)`,
	},
	{
		// Not due are those that wait for a person: parked, or paused by an operator. The
		// search for a late hold and a capture that is awaited are settled as they are.
		9, "no saga is stranded", `SELECT count(*) FROM sagas`, `
		SELECT 'saga ' || id || ' is ' || state || ' at ' || step || ', due since ' || due_at FROM sagas
		WHERE due_at IS NOT NULL AND paused_at IS NULL
			AND ($1::bool AND NOT awaiting AND definition <> 'orphan_void' OR due_at < now() - interval '1 minute')
		UNION ALL
		SELECT 'refund ' || r.id || ' is ' || r.status || ' and its saga ' || coalesce(s.state, 'missing') FROM refunds r
		LEFT JOIN sagas s ON s.merchant_id = r.merchant_id AND s.definition = 'refund' AND s.subject = r.id
		WHERE (r.status = 'pending') <> (s.state IS NOT NULL AND s.state NOT IN ('completed', 'compensated'))
		UNION ALL
		SELECT 'saga ' || s.id || ' is ' || s.state || ' and its order ' || o.status FROM sagas s
		JOIN orders o ON o.merchant_id = s.merchant_id AND o.id = s.subject
		WHERE (s.state = 'completed') <> (o.status = 'confirmed') OR s.state = 'compensated' AND o.status = 'placed'`,
	},
}

func (c check) run(ctx context.Context, tx pgx.Tx, settled bool) (Finding, error) {
	f := Finding{Invariant: c.invariant, Name: c.name}
	if err := tx.QueryRow(ctx, c.count).Scan(&f.Counted); err != nil {
		return f, err
	}
	rows, err := tx.Query(ctx, c.find, settled)
	if err != nil {
		return f, err
	}
	var violation string
	_, err = pgx.ForEachRow(rows, []any{&violation}, func() error {
		f.violate("%s", violation)
		return nil
	})
	return f, err
}
