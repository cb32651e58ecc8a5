package readmodel

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// followBatch is how many messages are applied in a transaction.
const followBatch = 500

// follower applies the log to the new tables as a consumer of its own, with the
// projector's handler: its sessions find the new tables under the live ones' names.
//
// It begins where the projector stood before the snapshot was taken. What the
// projector had applied by then was committed before the snapshot and is in it;
// of what comes later, the part that is in the snapshot is dropped row by row.
type follower struct {
	*rebuild
	pool  *pgxpool.Pool
	inbox *inbox.Inbox
	next  map[int]int64 // offsets
}

func (b *rebuild) newFollower(ctx context.Context) (*follower, error) {
	c := b.Read.Config() // a copy
	c.ConnConfig.RuntimeParams["search_path"] = schemaNext + ", public"
	c.MaxConns, c.MinConns = 2, 0
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open the rebuild's own sessions: %w", err)
	}
	f := &follower{rebuild: b, pool: pool}
	if err := f.begin(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return f, nil
}

func (f *follower) close() { f.pool.Close() }

func (f *follower) begin(ctx context.Context) (err error) {
	f.inbox, err = (&Projector{}).NewInbox(f.pool, f.consumer(), inbox.Config{Log: f.Logger, Registerer: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	if f.next, err = f.projector(ctx, f.conn); err != nil {
		return err
	}
	spans, err := f.Log.Spans(ctx, f.Topic)
	if err != nil {
		return fmt.Errorf("begin to follow the log: %w", err)
	}
	for partition, span := range spans {
		if at, ok := f.next[partition]; !ok || at < span[0] || at > span[1] { // as the consumers do
			f.next[partition] = span[0]
		}
	}
	// After the positions: what becomes a dead letter from here on comes by the log, too.
	orders, err := blockedOrders(ctx, f.conn, f.Consumer)
	if err != nil {
		return err
	}
	if _, err := f.conn.Exec(ctx, `INSERT INTO payment_view_next.parked_before SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`, orders); err != nil {
		return fmt.Errorf("keep blocked keys: %w", err)
	}
	return nil
}

// blockedOrders returns the orders whose keys are blocked.
func blockedOrders(ctx context.Context, db queryer, consumer string) ([]string, error) {
	rows, err := db.Query(ctx, `SELECT key FROM public.inbox_parked_keys WHERE consumer = $1`, consumer)
	if err != nil {
		return nil, fmt.Errorf("read blocked keys: %w", err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, fmt.Errorf("read blocked keys: %w", err)
	}
	orders := []string{}
	for _, k := range keys {
		if payment.ValidID(payment.PrefixOrder, string(k)) {
			orders = append(orders, string(k))
		}
	}
	return orders, nil
}

// retry applies the dead letters of the new tables' consumer that the projector may have
// applied meanwhile, by a person's replay. What stays blocked is looked at again: it
// was alike as long as it waited in both, and may not be any more.
func (f *follower) retry(ctx context.Context, tx pgx.Tx) error {
	if _, err := inbox.NewDeadLetters(f.pool, f.inbox).ReplayAll(ctx, inbox.BlockedFilter{Consumer: f.consumer()}); err != nil {
		return fmt.Errorf("retry what is dead letters: %w", err)
	}
	orders, err := blockedOrders(ctx, tx, f.consumer())
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO payment_view_next.unsettled
		SELECT merchant_id, payment_id FROM payment_view_next.payment_view WHERE order_id = ANY ($1)
		UNION SELECT merchant_id, payment_id FROM public.payment_view WHERE order_id = ANY ($1) ON CONFLICT DO NOTHING`, orders); err != nil {
		return fmt.Errorf("look at blocked keys again: %w", err)
	}
	return nil
}

type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// projector is how far the live consumer has come in each partition.
func (f *follower) projector(ctx context.Context, db queryer) (map[int]int64, error) {
	rows, err := db.Query(ctx, `
		SELECT partition, next_offset FROM public.inbox_offsets WHERE consumer = $1 AND topic = $2 AND next_offset IS NOT NULL`,
		f.Consumer, f.Topic)
	if err != nil {
		return nil, fmt.Errorf("read the projector's position: %w", err)
	}
	next := map[int]int64{}
	var partition int
	var offset int64
	if _, err := pgx.ForEachRow(rows, []any{&partition, &offset}, func() error {
		next[partition] = offset
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the projector's position: %w", err)
	}
	return next, nil
}

// toTheEnd applies until a round over the log finds less than a batch.
func (f *follower) toTheEnd(ctx context.Context) error {
	for {
		spans, err := f.Log.Spans(ctx, f.Topic)
		if err != nil {
			return fmt.Errorf("follow the log: %w", err)
		}
		before := f.done.Applied
		for _, partition := range slices.Sorted(maps.Keys(spans)) {
			if err := f.to(ctx, partition, spans[partition][1]); err != nil {
				return err
			}
		}
		if f.done.Applied-before < followBatch {
			return nil
		}
	}
}

// toTheProjector applies what the live consumer, who is held, had applied.
func (f *follower) toTheProjector(ctx context.Context, tx pgx.Tx) error {
	stands, err := f.projector(ctx, tx)
	if err != nil {
		return err
	}
	spans, err := f.Log.Spans(ctx, f.Topic)
	if err != nil {
		return fmt.Errorf("follow the log: %w", err)
	}
	for _, partition := range slices.Sorted(maps.Keys(stands)) {
		// A position beyond the end is of a log that is no more.
		if err := f.to(ctx, partition, min(stands[partition], spans[partition][1])); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) to(ctx context.Context, partition int, end int64) error {
	for f.next[partition] < end {
		batch, err := f.Log.Read(ctx, f.Topic, partition, f.next[partition])
		if err != nil {
			return fmt.Errorf("read %s/%d from offset %d: %w", f.Topic, partition, f.next[partition], err)
		}
		for part := range slices.Chunk(batch, followBatch) {
			n, err := f.inbox.Apply(ctx, 1, part)
			if n > 0 {
				f.next[partition] = part[n-1].Offset + 1
				f.done.Applied += int64(n)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
