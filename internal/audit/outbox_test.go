package audit

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/devstack/devtest"
	"payments/internal/outbox"
	"payments/internal/postgres"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

const merchant = "mer_00000000000000000000000000"

// orderWith makes an order at a sequence, whose events are those given.
func orderWith(t *testing.T, pool *pgxpool.Pool, id string, sequence int64, events ...int64) {
	t.Helper()
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `
			INSERT INTO merchants (id, name) VALUES ($1, 'm') ON CONFLICT DO NOTHING`, merchant); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), `
			INSERT INTO orders (merchant_id, id, reference, customer_reference, currency, amount, status, sequence, created_at)
			VALUES ($1, $2::text, $2::text, 'c', 'EUR', 1, 'failed', $3, now())
			ON CONFLICT (merchant_id, id) DO UPDATE SET sequence = excluded.sequence`, merchant, id, sequence); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), `
			INSERT INTO order_lines (merchant_id, order_id, line, sku, quantity, unit_amount) VALUES ($1, $2, 0, 'A', 1, 1) ON CONFLICT DO NOTHING`,
			merchant, id); err != nil {
			return err
		}
		for _, n := range events {
			if err := outbox.Append(t.Context(), tx, outbox.Message{
				MerchantID: merchant, ID: id + string(rune('0'+n)), Topic: "events", Key: id, Sequence: n,
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// violations of the checks whose names begin so.
func violations(t *testing.T, pool *pgxpool.Pool, name string) (all []string) {
	t.Helper()
	if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		for _, c := range checks {
			if strings.HasPrefix(c.name, name) {
				f, err := c.run(t.Context(), tx, true)
				if err != nil {
					return err
				}
				all = append(all, f.Violations...)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEventsAreCountedAcrossWhatRetentionDropped(t *testing.T) {
	db := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	execute := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	execute(`ALTER TABLE outbox DETACH PARTITION outbox_parts.outbox_1; DROP TABLE outbox_parts.outbox_1;
		DELETE FROM outbox_partitions WHERE parent = 'outbox'; SELECT outbox_extend('outbox', 4, 3)`)
	a, b, c := "ord_0000000000000000000000000a", "ord_0000000000000000000000000b", "ord_0000000000000000000000000c"
	none := func(when string) {
		t.Helper()
		if v := append(violations(t, pool, "an order's events"), violations(t, pool, "every event")...); len(v) > 0 {
			t.Errorf("%s: %v", when, v)
		}
	}
	orderWith(t, pool, a, 3, 1, 2, 3) // in the first partition but for the last
	orderWith(t, pool, b, 2, 1, 2)
	if v := violations(t, pool, "every event"); len(v) != 5 {
		t.Errorf("before a relay %d events are not published, want 5", len(v))
	}
	execute(`INSERT INTO outbox_checkpoints (shard, epoch, done) VALUES (0, 1, pg_current_snapshot())`)
	execute(`SELECT outbox_extend('outbox', 4, 3)`)
	execute(`INSERT INTO outbox_checkpoints (shard, epoch, done) VALUES (0, 1, pg_current_snapshot())`)
	none("before the drop")
	for _, want := range []string{"sealed", "dropped"} {
		var state string
		if err := pool.QueryRow(t.Context(), `SELECT state FROM outbox_retire('outbox', '0')`).Scan(&state); err != nil || state != want {
			t.Fatalf("outbox_retire = %q, %v; want %q", state, err, want)
		}
		none("after the partition was " + want)
	}
	// Its next event, one with a gap towards what was dropped, and one that lost all.
	orderWith(t, pool, a, 4, 4)
	orderWith(t, pool, b, 4, 4)
	orderWith(t, pool, c, 1)
	execute(`INSERT INTO outbox_checkpoints (shard, epoch, done) VALUES (0, 1, pg_current_snapshot())`)
	v := violations(t, pool, "an order's events")
	if told := strings.Join(v, "\n"); len(v) != 2 || !strings.Contains(told, b) || !strings.Contains(told, c) {
		t.Errorf("violations are %v, want one of %s and one of %s", v, b, c)
	}
}

func TestAFactThatIsToldTwiceIsFound(t *testing.T) {
	db := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	const id = "ord_0000000000000000000000000a"
	orderWith(t, pool, id, 4)
	tell := func(sequence int64, what string) {
		t.Helper()
		if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			return outbox.Append(t.Context(), tx, outbox.Message{
				MerchantID: merchant, ID: id + string(rune('0'+sequence)), Topic: "events", Key: id, Sequence: sequence,
				Headers: []outbox.Header{{Key: "ce_id", Value: "ce_type"}, {Key: "ce_type", Value: what}},
			})
		}); err != nil {
			t.Fatal(err)
		}
	}
	for n, what := range []string{"refund.requested", "payment.authorized", "refund.requested"} {
		tell(int64(n+1), what)
	}
	if v := violations(t, pool, "what happens once"); len(v) > 0 {
		t.Errorf("found %v", v)
	}
	tell(4, "payment.authorized")
	if v := violations(t, pool, "what happens once"); len(v) != 1 || !strings.Contains(v[0], id+" tells 2 times of payment.authorized") {
		t.Errorf("found %v", v)
	}
}
