package readmodel

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	settleFor   = 10 * time.Second
	settlePause = 100 * time.Millisecond
	// fewBehind rows are looked at once more while the projector is held.
	fewBehind = 1000
)

// linesDiffer leaves out whether the lines are in a feed, which is the projector's to say.
func linesDiffer(a, b string) string {
	const row = "(%[1]s.event_id, %[1]s.type, %[1]s.data, %[1]s.occurred_at)"
	return fmt.Sprintf(row, a) + " IS DISTINCT FROM " + fmt.Sprintf(row, b)
}

// compare notes each payment of which the two models have not the same rows. The
// rows themselves are compared and not their digests: both lie in one database. A
// payment that is alike here stays so, since one function moves both rows over the
// same events; of the others judge has the word.
func (b *rebuild) compare(ctx context.Context) error {
	tag, err := b.conn.Exec(ctx, `
		INSERT INTO payment_view_next.unsettled
		SELECT merchant_id, payment_id FROM payment_view_next.payment_view n FULL JOIN public.payment_view l USING (merchant_id, payment_id)
			WHERE n IS DISTINCT FROM l
		UNION SELECT merchant_id, payment_id FROM payment_view_next.refund_view n FULL JOIN public.refund_view l USING (merchant_id, payment_id, refund_id)
			WHERE n IS DISTINCT FROM l
		UNION SELECT merchant_id, payment_id FROM payment_view_next.payment_timeline n FULL JOIN public.payment_timeline l USING (merchant_id, payment_id, sequence)
			WHERE `+linesDiffer("n", "l"))
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	b.unsettled = tag.RowsAffected()
	// A payment's terms are written with its first event and never change: where both
	// models have the payment, nothing is on its way.
	if _, err := b.conn.Exec(ctx, `
		INSERT INTO payment_view_next.different
		SELECT DISTINCT merchant_id, payment_id, 'terms'
		FROM payment_view_next.payment_term n FULL JOIN public.payment_term l USING (merchant_id, payment_id, term)
			JOIN payment_view_next.payment_view USING (merchant_id, payment_id) JOIN public.payment_view USING (merchant_id, payment_id)
		WHERE n IS NULL OR l IS NULL`); err != nil {
		return fmt.Errorf("compare terms: %w", err)
	}
	if err := b.conn.QueryRow(ctx, `
		SELECT count(*) FROM payment_view_next.payment_view n FULL JOIN public.payment_view l USING (merchant_id, payment_id)`).
		Scan(&b.done.Compared); err != nil {
		return fmt.Errorf("count: %w", err)
	}
	return nil
}

// What judge says of a payment whose rows cannot be held against each other.
const (
	behind       = "behind"
	unknown      = "is unknown to the write model"
	further      = "is further than its events"
	onlyTimeline = "timeline"
)

// judge looks again at what is unsettled. A difference at one sequence is one for
// good, but in the timeline, whose lines may come after the row that they are of;
// before the last time, when the projector is held, the rest may be on its way.
func (b *rebuild) judge(ctx context.Context, db rowQueryer, last bool) error {
	err := db.QueryRow(ctx, `
		WITH judged AS MATERIALIZED (
			SELECT u.merchant_id, u.payment_id, CASE
				WHEN l.payment_id IS NULL OR n.sequence > l.sequence THEN $1
				WHEN n.payment_id IS NULL THEN $2
				WHEN l.sequence > n.sequence THEN $3
				ELSE concat_ws(', ',
					(SELECT string_agg(key, ', ' ORDER BY key) FROM jsonb_each(to_jsonb(n)) a FULL JOIN jsonb_each(to_jsonb(l)) b USING (key)
						WHERE a.value IS DISTINCT FROM b.value),
					(SELECT 'refunds' WHERE EXISTS (SELECT FROM
						(SELECT * FROM payment_view_next.refund_view r WHERE r.merchant_id = u.merchant_id AND r.payment_id = u.payment_id) a FULL JOIN
						(SELECT * FROM public.refund_view r WHERE r.merchant_id = u.merchant_id AND r.payment_id = u.payment_id) b USING (refund_id)
						WHERE a IS DISTINCT FROM b)),
					(SELECT $4::text WHERE EXISTS (SELECT FROM
						(SELECT * FROM payment_view_next.payment_timeline t WHERE t.merchant_id = u.merchant_id AND t.payment_id = u.payment_id) a FULL JOIN
						(SELECT * FROM public.payment_timeline t WHERE t.merchant_id = u.merchant_id AND t.payment_id = u.payment_id) b USING (sequence)
						WHERE `+linesDiffer("a", "b")+`)))
				END AS what
			FROM payment_view_next.unsettled u
				LEFT JOIN payment_view_next.payment_view n ON n.merchant_id = u.merchant_id AND n.payment_id = u.payment_id
				LEFT JOIN public.payment_view l ON l.merchant_id = u.merchant_id AND l.payment_id = u.payment_id),
		found AS (
			INSERT INTO payment_view_next.different
			SELECT merchant_id, payment_id, what FROM judged
			WHERE what NOT IN ('', $1) AND ($5 OR what NOT IN ($2, $3, $4))
			ON CONFLICT (merchant_id, payment_id) DO UPDATE SET what = excluded.what || ', ' || different.what),
		settled AS (
			DELETE FROM payment_view_next.unsettled u USING judged j
			WHERE u.merchant_id = j.merchant_id AND u.payment_id = j.payment_id AND ($5 OR what NOT IN ($1, $2, $3, $4)))
		SELECT count(*) FILTER (WHERE what = $1), count(*) FILTER (WHERE NOT $5 AND what IN ($1, $2, $3, $4)) FROM judged`,
		behind, unknown, further, onlyTimeline, last).Scan(&b.behind, &b.unsettled)
	if err != nil {
		return fmt.Errorf("judge what differs: %w", err)
	}
	return nil
}

type rowQueryer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// settle gives what is on its way the time to arrive, as long as that makes what is
// unsettled less. Many rows that the projector is behind with are then counted and
// replaced unseen, since the hold has no time for them.
func (b *rebuild) settle(ctx context.Context, f *follower) error {
	over := time.NewTimer(settleFor)
	defer over.Stop()
	pause := time.NewTicker(settlePause)
	defer pause.Stop()
	for stale := 0; b.unsettled > 0 && stale < 5; {
		before := b.unsettled
		if err := b.judge(ctx, b.conn, false); err != nil {
			return err
		}
		if b.unsettled >= before {
			stale++
		}
		select {
		case <-pause.C:
		case <-over.C:
			stale = 5
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := f.toTheEnd(ctx); err != nil {
			return err
		}
	}
	if b.behind <= fewBehind {
		return b.vacuum(ctx, "unsettled")
	}
	tag, err := b.conn.Exec(ctx, `
		DELETE FROM payment_view_next.unsettled u USING payment_view_next.payment_view n
		WHERE n.merchant_id = u.merchant_id AND n.payment_id = u.payment_id AND n.sequence > coalesce((
			SELECT l.sequence FROM public.payment_view l WHERE l.merchant_id = u.merchant_id AND l.payment_id = u.payment_id), 0)`)
	if err != nil {
		return fmt.Errorf("count what the projector is behind with: %w", err)
	}
	b.unseen = tag.RowsAffected()
	return b.vacuum(ctx, "unsettled")
}

// report reads what judge has found at last.
func (b *rebuild) report(ctx context.Context, tx pgx.Tx) error {
	b.done.Behind = b.unseen + b.behind
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM payment_view_next.different`).Scan(&b.done.Different); err != nil {
		return fmt.Errorf("read the differences: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT merchant_id, payment_id, what FROM payment_view_next.different ORDER BY payment_id LIMIT $1`, shownDifference)
	if err != nil {
		return fmt.Errorf("read the differences: %w", err)
	}
	if b.done.Differences, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Difference]); err != nil {
		return fmt.Errorf("read the differences: %w", err)
	}
	return nil
}
