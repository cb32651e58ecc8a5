package readmodel

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// source is one new table's part of the snapshot: what the projector would have
// made of the events up to the order's sequence, as the write model says it.
type source struct {
	table, columns, query string
}

// sourcePayments: an order's updated_at is the time of its newest event, but for
// the first, whose time is created_at.
var sourcePayments = source{ //nolint:gochecknoglobals // a constant, were structs constants
	"payment_view", `merchant_id, payment_id, order_id, sequence, status, currency, amount, amount_captured, amount_refunded,
		payment_method, payment_method_ciphertext, capture_method, customer_reference, customer_email_ciphertext, order_reference, lines,
		failure, failure_code, dispute, created_at, updated_at`, `
	SELECT p.merchant_id, p.id, p.order_id, o.sequence, p.status, p.currency, p.amount::bigint, p.amount_captured::bigint, p.amount_refunded::bigint,
		p.payment_method, p.payment_method_ciphertext, p.capture_method, o.customer_reference::text, o.customer_email_ciphertext, o.reference::text,
		(SELECT jsonb_agg(jsonb_build_object('sku', l.sku, 'quantity', l.quantity, 'unit_amount', l.unit_amount) ORDER BY l.line)
			FROM order_lines l WHERE l.merchant_id = o.merchant_id AND l.order_id = o.id),
		CASE WHEN p.failure_code IS NOT NULL
			THEN jsonb_build_object('code', p.failure_code, 'step', p.failure_step, 'message', p.failure_message) END, p.failure_code, ` + sourceDispute + `,
		o.created_at, CASE o.sequence WHEN 1 THEN o.created_at ELSE o.updated_at END
	FROM orders o JOIN payments p ON p.merchant_id = o.merchant_id AND p.order_id = o.id`,
}

var sourceRefunds = source{ //nolint:gochecknoglobals // a constant, were structs constants
	"refund_view", `merchant_id, payment_id, refund_id, amount, reason, status, failure_code, created_at, updated_at`, `
	SELECT merchant_id, payment_id, id, amount::bigint, reason::text, status, failure_code, created_at, updated_at FROM refunds`,
}

// sourceTimeline: what happened when, under which id and after which attempts stands
// nowhere in the write model but in its outbox, whose retention drops it. A line
// that is older than that is kept from the live table (keepLines), and one that the
// outbox still has is made anew, so that a line that was spoiled or lost heals as far
// back as it goes. The headers are names and values in turn, in pairs or flat.
var sourceTimeline = source{ //nolint:gochecknoglobals // a constant, were structs constants
	"payment_timeline", `merchant_id, payment_id, sequence, event_id, type, data, occurred_at`, `
	SELECT o.merchant_id, d.data->>'payment_id', o.sequence, o.id, h.type,
		d.` + lineData + `, h.time::timestamptz
	FROM outbox o,
		LATERAL (SELECT convert_from(o.payload, 'UTF8')::jsonb AS data) d,
		LATERAL (SELECT jsonb_path_query_array(to_jsonb(o.headers), 'lax $[*][*]') AS flat) f,
		LATERAL (
			SELECT max(flat->>(2 * i + 1)) FILTER (WHERE flat->>(2 * i) = 'ce_type') AS type,
				max(flat->>(2 * i + 1)) FILTER (WHERE flat->>(2 * i) = 'ce_time') AS time
			FROM generate_series(0, jsonb_array_length(flat) / 2 - 1) i) h
	WHERE o.topic = `,
}

// snapshot fills the new tables from one snapshot of the write model, which may be
// another database: each table is one COPY out of it and into the read model's,
// with no more in memory than a message of the protocol.
func (b *rebuild) snapshot(ctx context.Context) error {
	write, err := session(ctx, b.Write)
	if err != nil {
		return err
	}
	defer func() { _ = write.Close(context.WithoutCancel(ctx)) }()
	// It only reads: should it break, there is nothing to undo.
	if _, err := write.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY`); err != nil {
		return fmt.Errorf("begin the snapshot: %w", err)
	}
	timeline := sourceTimeline
	timeline.query += quoted(b.Topic)
	for _, s := range []struct {
		source
		rows *int64
	}{{sourcePayments, &b.done.Payments}, {sourceRefunds, &b.done.Refunds}, {timeline, &b.done.Lines}} {
		if *s.rows, err = s.copy(ctx, write.PgConn(), b.conn.PgConn()); err != nil {
			return fmt.Errorf("copy %s: %w", s.table, err)
		}
	}
	return b.findable(ctx)
}

// quoted is a string constant of SQL, for COPY, which takes no arguments.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (s source) copy(ctx context.Context, from, to *pgconn.PgConn) (rows int64, err error) {
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		_, err := from.CopyTo(ctx, w, `COPY (`+s.query+`) TO STDOUT (FORMAT binary)`)
		w.CloseWithError(err) // nil is the end
		sent <- err
	}()
	tag, err := to.CopyFrom(ctx, r, `COPY `+schemaNext+`.`+s.table+` (`+s.columns+`) FROM STDIN (FORMAT binary)`)
	r.CloseWithError(io.ErrClosedPipe) // nobody reads what is still sent
	if sendErr := <-sent; sendErr != nil && err == nil {
		err = sendErr
	}
	return tag.RowsAffected(), err
}

// keepLines takes over the lines of the live timeline that the outbox has no more,
// up to each row's sequence; what is beyond comes from the log. There are no
// indexes yet: they are made at once when all lines are there.
func (b *rebuild) keepLines(ctx context.Context) error {
	if err := b.vacuum(ctx, viewTables[:]...); err != nil {
		return err
	}
	// Materialized, since a nested loop over the table itself would see it grow.
	tag, err := b.conn.Exec(ctx, `
		WITH told AS MATERIALIZED (SELECT merchant_id, payment_id, sequence FROM payment_view_next.payment_timeline)
		INSERT INTO payment_view_next.payment_timeline
		SELECT l.* FROM public.payment_timeline l
			JOIN payment_view_next.payment_view v ON v.merchant_id = l.merchant_id AND v.payment_id = l.payment_id AND l.sequence <= v.sequence
		WHERE NOT EXISTS (SELECT FROM told t WHERE t.merchant_id = l.merchant_id AND t.payment_id = l.payment_id AND t.sequence = l.sequence)`)
	if err != nil {
		return fmt.Errorf("keep the timeline: %w", err)
	}
	b.done.Kept = tag.RowsAffected()
	return b.leaveWaitingLines(ctx)
}

// leaveWaitingLines leaves out what the projector has not applied of keys that were blocked
// when the rebuild began: the lines come when a person has the key applied, each after the
// one before it. A line that the outbox still has, of an event that waits, would stand after
// a line that the outbox has no more, and a stream that was told it would pass the other by.
func (b *rebuild) leaveWaitingLines(ctx context.Context) error {
	if _, err := b.conn.Exec(ctx, `
		DELETE FROM payment_view_next.payment_timeline t
		USING payment_view_next.parked_before p JOIN payment_view_next.payment_view v ON v.order_id = p.order_id
		WHERE t.merchant_id = v.merchant_id AND t.payment_id = v.payment_id AND NOT EXISTS (SELECT FROM public.payment_timeline l
			WHERE l.merchant_id = t.merchant_id AND l.payment_id = t.payment_id AND l.sequence = t.sequence)`); err != nil {
		return fmt.Errorf("leave the lines of blocked keys out: %w", err)
	}
	return nil
}

// vacuum also sees to it that the next queries are planned by what the tables hold.
func (b *rebuild) vacuum(ctx context.Context, tables ...string) error {
	for _, t := range tables {
		if _, err := b.conn.Exec(ctx, `VACUUM (ANALYZE) `+schemaNext+`.`+t); err != nil {
			return fmt.Errorf("analyze %s: %w", t, err)
		}
	}
	return nil
}

// keepBlockedLines takes over what a person has had applied meanwhile of keys that
// were blocked when the rebuild began: it lies before the rebuild's own position.
func (b *rebuild) keepBlockedLines(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `
		INSERT INTO payment_view_next.payment_timeline
		SELECT l.* FROM payment_view_next.parked_before p JOIN payment_view_next.payment_view v ON v.order_id = p.order_id
			JOIN public.payment_timeline l ON l.merchant_id = v.merchant_id AND l.payment_id = v.payment_id AND l.sequence <= v.sequence
		ON CONFLICT DO NOTHING`); err != nil {
		return fmt.Errorf("keep the timeline of blocked keys: %w", err)
	}
	return nil
}
