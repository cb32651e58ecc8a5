package seed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
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
	Methods    *secret.Tokens // of payment methods
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
	onHand    = 1_000_000
)

// Run fills empty databases in one transaction of each, during which their tables
// belong to it: indexes and keys are made when all rows are there, and a run that is
// stopped leaves nothing. Beside other payments it commits batch by batch instead, each
// of them whole, with the indexes as they are. Its memory is a few batches.
func Run(ctx context.Context, c Config) error {
	if c.Payments < 1 || c.Merchants < 1 || !c.Begin.Before(c.End) || c.Write == nil || c.Read == nil || c.Methods == nil {
		return errors.New("seed: both pools, the keys, a number of payments and of merchants, and a span of time are needed")
	}
	if c.Done == nil {
		c.Done = func(int) {}
	}
	g := newGenerator(c.Seed, c.Merchants, c.Begin)
	g.size(c.Payments)
	batches := make(chan *batch)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		return c.generate(gctx, g, batches)
	})
	group.Go(func() error {
		if c.Beside {
			return c.fillBeside(gctx, g.merchants, batches)
		}
		return c.fillEmpty(gctx, g.merchants, batches)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return c.analyze(ctx)
}

func (c Config) fillBeside(ctx context.Context, merchants []merchant, batches <-chan *batch) error {
	if err := withoutTimeouts(ctx, c.Write, func(tx pgx.Tx) error { return makeMerchants(ctx, tx, merchants) }); err != nil {
		return err
	}
	done := 0
	for b := range batches {
		if err := withoutTimeouts(ctx, c.Write, b.write(ctx)); err != nil {
			return err
		}
		// Until then the read model is behind, as a projector is.
		if err := withoutTimeouts(ctx, c.Read, b.read(ctx)); err != nil {
			return err
		}
		done += b.payments
		c.Done(done)
	}
	return nil
}

func (c Config) fillEmpty(ctx context.Context, merchants []merchant, batches <-chan *batch) error {
	return withoutTimeouts(ctx, c.Write, func(write pgx.Tx) error {
		read := write
		fill := func(tx pgx.Tx) error {
			read = tx
			return c.fill(ctx, write, read, merchants, batches)
		}
		if c.Read == c.Write {
			return fill(write)
		}
		return withoutTimeouts(ctx, c.Read, fill)
	})
}

func (c Config) fill(ctx context.Context, write, read pgx.Tx, merchants []merchant, batches <-chan *batch) error {
	writeIndexes, err := takeIndexes(ctx, write, "payments", writeTables())
	if err != nil {
		return err
	}
	readIndexes, err := takeIndexes(ctx, read, "payment_view", readTables())
	if err != nil {
		return err
	}
	if err := makeMerchants(ctx, write, merchants); err != nil {
		return err
	}
	done, sold := 0, map[article]int64{}
	for b := range batches {
		for a, n := range b.sold {
			sold[a] += n
		}
		b.sold = nil
		if err := b.write(ctx)(write); err != nil {
			return err
		}
		if err := b.read(ctx)(read); err != nil {
			return err
		}
		done += b.payments
		c.Done(done)
	}
	if err := sell(ctx, write, sold); err != nil {
		return err
	}
	if err := execute(ctx, write, writeIndexes); err != nil {
		return err
	}
	return execute(ctx, read, readIndexes)
}

func makeMerchants(ctx context.Context, tx pgx.Tx, merchants []merchant) error {
	for i := range merchants {
		m := &merchants[i] // whose id alone does not change while payments are made
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
		if err := b.add(l, c.Methods, timeline); err != nil {
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

func (b *batch) write(ctx context.Context) func(pgx.Tx) error {
	return func(tx pgx.Tx) error {
		if err := copyAll(ctx, tx, b.written); err != nil {
			return err
		}
		return sell(ctx, tx, b.sold)
	}
}

func (b *batch) read(ctx context.Context) func(pgx.Tx) error {
	return func(tx pgx.Tx) error { return copyAll(ctx, tx, b.projected) }
}

// withoutTimeouts runs fn in a transaction whose statements have no timeout.
func withoutTimeouts(ctx context.Context, pool *pgxpool.Pool, fn func(pgx.Tx) error) error {
	return postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL synchronous_commit = off;
			SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL maintenance_work_mem = '512MB'`); err != nil {
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
