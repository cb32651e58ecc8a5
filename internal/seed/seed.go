package seed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// Config of one run.
type Config struct {
	// Write and Read are the two models' databases, or twice the same pool, as their
	// owner: COPY does not go into tables whose row-level security binds the role.
	Write, Read *pgxpool.Pool
	Payments    int
	Merchants   int
	// Timelines is how many of the newest payments get their timeline, the largest
	// table by far: five lines and more each.
	Timelines int
	// Begin and End of their creation. A key of a payment is kept for 31 days, and
	// what is older than that has none.
	Begin, End time.Time
	Seed       uint64
	// Beside allows payments that are there already.
	Beside bool
	// Done is told how many payments are committed; nil: nobody.
	Done func(payments int)
}

// ErrNotEmpty: there are payments, which Beside was not said of.
var ErrNotEmpty = errors.New("the database has payments; seeding beside them has to be asked for")

const (
	batchSize = 10_000
	// writers share a core each with Postgres.
	writers = 2
	onHand  = 1_000_000
)

// Run commits batch by batch, each in a transaction of each database: what a run
// that was stopped has written is whole. Its memory is a few batches.
func Run(ctx context.Context, c Config) error {
	if c.Payments < 1 || c.Merchants < 1 || !c.Begin.Before(c.End) || c.Write == nil || c.Read == nil {
		return errors.New("seed: both pools, a number of payments and of merchants, and a span of time are needed")
	}
	if c.Done == nil {
		c.Done = func(int) {}
	}
	if err := c.empty(ctx); err != nil {
		return err
	}
	g := newGenerator(c.Seed, c.Merchants, c.Begin)
	g.size(c.Payments)
	if err := c.makeMerchants(ctx, g.merchants); err != nil {
		return err
	}
	batches, written := make(chan *batch), make(chan int)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		return c.generate(gctx, g, batches)
	})
	writing, wctx := errgroup.WithContext(gctx)
	for range writers {
		writing.Go(func() error {
			for b := range batches {
				if err := c.write(wctx, b); err != nil {
					return err
				}
				written <- b.payments
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(written)
		return writing.Wait()
	})
	for total := range sums(written) {
		c.Done(total)
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.analyze(ctx)
}

func sums(written <-chan int) iter.Seq[int] {
	return func(yield func(int) bool) {
		total := 0
		for n := range written {
			if total += n; !yield(total) {
				return
			}
		}
	}
}

func (c Config) empty(ctx context.Context) error {
	if c.Beside {
		return nil
	}
	for _, model := range []struct {
		pool *pgxpool.Pool
		sql  string
	}{{c.Write, `SELECT EXISTS (SELECT FROM payments)`}, {c.Read, `SELECT EXISTS (SELECT FROM payment_view)`}} {
		var exists bool
		if err := model.pool.QueryRow(ctx, model.sql).Scan(&exists); err != nil {
			return fmt.Errorf("look for payments: %w", err)
		}
		if exists {
			return ErrNotEmpty
		}
	}
	return nil
}

func (c Config) makeMerchants(ctx context.Context, merchants []merchant) error {
	return postgres.InTx(ctx, c.Write, func(tx pgx.Tx) error {
		for i, m := range merchants {
			if _, err := tx.Exec(ctx, `INSERT INTO merchants (id, name) VALUES ($1, $2)`, m.id, fmt.Sprintf("Seeded shop %d", i+1)); err != nil {
				return fmt.Errorf("make merchants: %w", err)
			}
			for n := range skus {
				level, err := payment.NewStock("", m.id, skuName(n), onHand)
				if err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, `INSERT INTO stock (merchant_id, sku, received, on_hand) VALUES ($1, $2, $3, $3)`,
					level.MerchantID(), level.SKU(), level.OnHand()); err != nil {
					return fmt.Errorf("make stock: %w", err)
				}
			}
		}
		return nil
	})
}

func (c Config) generate(ctx context.Context, g *generator, batches chan<- *batch) error {
	step := c.End.Sub(c.Begin) / time.Duration(c.Payments)
	b := newBatch()
	for n := range c.Payments {
		// Truncated, as Postgres keeps it.
		l, err := g.next(c.Begin.Add(time.Duration(n) * step).Truncate(time.Microsecond))
		if err != nil {
			return err
		}
		var timeline []string
		if n >= c.Payments-c.Timelines {
			for range l.events {
				timeline = append(timeline, g.ids.New(payment.PrefixEvent))
			}
		}
		if err := b.add(l, timeline); err != nil {
			return err
		}
		if b.payments < batchSize && n < c.Payments-1 {
			continue
		}
		select {
		case batches <- b:
			b = newBatch()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// write commits the read model last: until then it is behind, as a projector is.
func (c Config) write(ctx context.Context, b *batch) error {
	err := unhurried(ctx, c.Write, func(tx pgx.Tx) error {
		if err := copyAll(ctx, tx, b.write); err != nil {
			return err
		}
		return sell(ctx, tx, b.sold)
	})
	if err != nil {
		return err
	}
	return unhurried(ctx, c.Read, func(tx pgx.Tx) error { return copyAll(ctx, tx, b.read) })
}

// unhurried is a transaction whose statements take as long as they need.
func unhurried(ctx context.Context, pool *pgxpool.Pool, fn func(pgx.Tx) error) error {
	return postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL synchronous_commit = off`); err != nil {
			return err
		}
		return fn(tx)
	})
}

func copyAll(ctx context.Context, tx pgx.Tx, tables []*table) error {
	for _, t := range tables {
		if t.count == 0 {
			continue
		}
		tag, err := tx.Conn().PgConn().CopyFrom(ctx, &t.rows, "COPY "+t.name+" ("+t.columns+") FROM STDIN")
		if err != nil {
			return fmt.Errorf("copy into %s: %w", t.name, err)
		}
		if tag.RowsAffected() != t.count {
			return fmt.Errorf("copy into %s: %d of %d rows", t.name, tag.RowsAffected(), t.count)
		}
	}
	return nil
}

// sell counts what the batch has sold as received before, in the order of the key.
func sell(ctx context.Context, tx pgx.Tx, sold map[article]int64) error {
	articles := slices.SortedFunc(maps.Keys(sold), func(a, b article) int {
		return cmp.Or(strings.Compare(a.merchantID, b.merchantID), strings.Compare(a.sku, b.sku))
	})
	for _, a := range articles {
		if _, err := tx.Exec(ctx, `UPDATE stock SET received = received + $3, sold = sold + $3 WHERE merchant_id = $1 AND sku = $2`,
			a.merchantID, a.sku, sold[a]); err != nil {
			return fmt.Errorf("sell stock: %w", err)
		}
	}
	return nil
}

// analyze leaves tables as they are after a while of operation: planned for what they
// hold, and with their visibility map.
func (c Config) analyze(ctx context.Context) error {
	if err := vacuum(ctx, c.Write, writeTables()); err != nil {
		return err
	}
	return vacuum(ctx, c.Read, readTables())
}

func vacuum(ctx context.Context, pool *pgxpool.Pool, tables []*table) error {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	conn := pooled.Hijack() // so that its setting does not outlive it
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, `SET statement_timeout = 0`); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	for _, t := range tables {
		if _, err := conn.Exec(ctx, `VACUUM (ANALYZE) `+t.name); err != nil {
			return fmt.Errorf("analyze %s: %w", t.name, err)
		}
	}
	return nil
}
