package readmodel

import (
	"flag"
	"testing"
	"time"
)

var rebuildPayments = flag.Int("rebuild-payments", 0, "how many payments TestRebuildOfAMillion makes; 0 skips it")

// TestRebuildOfAMillion measures a rebuild beside posts, queries and the projector:
//
//	go test ./internal/readmodel -run TestRebuildOfAMillion -v -timeout 60m -rebuild-payments=1000000
//
// Each payment has a line, five events (seven with a refund, every twentieth), and a
// timeline that the outbox has dropped, as after its retention. The numbers that it
// came to are in docs/read-model.md.
func TestRebuildOfAMillion(t *testing.T) {
	if *rebuildPayments == 0 {
		t.Skip("-rebuild-payments is 0")
	}
	s := newShop(t, false)
	conn, err := session(t.Context(), s.writeOwner)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	step := time.Now()
	lap := func(what string) {
		t.Logf("%-40s %7.1f s", what, time.Since(step).Seconds())
		step = time.Now()
	}
	for _, sql := range []string{`
		INSERT INTO orders (merchant_id, id, reference, customer_reference, customer_email_ciphertext, currency, amount, status, sequence, created_at, updated_at)
		SELECT m.id, 'ord_01jqh' || lpad(n::text, 21, '0'), 'B-' || n, 'cust-' || n % 10000, decode(repeat('5a', 60), 'hex'), 'EUR', 4998, 'confirmed',
			CASE WHEN n % 20 = 0 THEN 7 ELSE 5 END, timestamptz '2026-01-01' + n * interval '1 ms', timestamptz '2026-01-01 00:00:01' + n * interval '1 ms'
		FROM merchants m, generate_series(1, $1::int) n`, `
		INSERT INTO order_lines (merchant_id, order_id, line, sku, quantity, unit_amount)
		SELECT merchant_id, id, 0, 'TSHIRT-M', 2, 2499 FROM orders LIMIT $1`, `
		INSERT INTO payments (merchant_id, id, order_id, status, currency, amount, amount_captured, amount_refunded, payment_method, capture_method, created_at)
		SELECT merchant_id, replace(id, 'ord_', 'pay_'), id, 'succeeded', 'EUR', 4998, 4998, CASE sequence WHEN 7 THEN 999 ELSE 0 END,
			'pm_card_visa', 'automatic', created_at FROM orders LIMIT $1`, `
		INSERT INTO refunds (merchant_id, id, payment_id, amount, reason, status, created_at, updated_at)
		SELECT merchant_id, replace(id, 'ord_', 'ref_'), replace(id, 'ord_', 'pay_'), 999, 'returned', 'succeeded', updated_at - interval '1 s', updated_at
		FROM orders WHERE sequence = 7 LIMIT $1`, `
		INSERT INTO payment_timeline (merchant_id, payment_id, sequence, event_id, type, data, occurred_at)
		SELECT merchant_id, replace(id, 'ord_', 'pay_'), n, 'evt_' || substr(replace(id, 'ord_', ''), 1, 24) || lpad(n::text, 2, '0'), 'order.confirmed',
			jsonb_build_object('merchant_id', merchant_id, 'order_id', id, 'payment_id', replace(id, 'ord_', 'pay_'), 'status', 'succeeded'), created_at
		FROM orders, generate_series(1, sequence) n LIMIT $1 * 10`,
	} {
		if _, err := conn.Exec(t.Context(), sql, *rebuildPayments); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(t.Context(), `ANALYZE`); err != nil {
		t.Fatal(err)
	}
	lap("payments made")
	s.project()
	show := func(what string, r Rebuilt) {
		t.Logf("%s: %+v", what, r)
		lap(what)
	}
	r, err := s.rebuild()
	if err != nil || !r.Swapped || r.Payments != int64(*rebuildPayments) {
		t.Fatalf("from nothing: %+v: %v", r, err)
	}
	show("rebuilt from nothing", r)
	stop := s.traffic()
	r, err = s.rebuild()
	posts, queries, slowest := stop()
	if err != nil || !r.Swapped || r.Different != 0 || r.Compared < int64(*rebuildPayments) || posts == 0 || queries == 0 {
		t.Fatalf("beside traffic: %+v: %v", r, err)
	}
	show("rebuilt beside traffic", r)
	t.Logf("%d posts and %d queries meanwhile, none failed: %t; the slowest page with its payments took %s", posts, queries, !t.Failed(), slowest)
	s.settles()
	if r, err = s.rebuild(); err != nil || r.Different != 0 || r.Behind != 0 {
		t.Fatalf("at rest: %+v: %v", r, err)
	}
	show("rebuilt at rest", r)
}
