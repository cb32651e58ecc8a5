package order_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

// Past the program, as the owner, by every statement that could part an order's amount
// from its lines.
func TestTheDatabaseRefusesAnOrderThatDoesNotAddUp(t *testing.T) {
	db := devtest.Database(t)
	owner, err := postgres.Open(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	const (
		order = `INSERT INTO orders (merchant_id, id, reference, customer_reference, currency, amount, status, sequence, created_at)
			VALUES ('mer_01m8702cvkfn8aqyvxe63m804e', 'ord_01m8702cvkfn8aqyvxe63m804e', 'r', 'c', 'EUR', 5, 'failed', 1, now());`
		line = `INSERT INTO order_lines (merchant_id, order_id, line, sku, quantity, unit_amount)
			SELECT merchant_id, id, n, 'A', quantity, unit_amount FROM orders, (VALUES `
		lines = ` (0, 2, 2), (1, 1, 1)) AS l (n, quantity, unit_amount);`
	)
	// execute is one transaction.
	execute := func(sql string) error {
		return postgres.InTx(t.Context(), owner, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql)
			return err
		})
	}
	if err := execute(`INSERT INTO merchants (id, name) VALUES ('mer_01m8702cvkfn8aqyvxe63m804e', 'Shop')`); err != nil {
		t.Fatal(err)
	}
	refused := func(name, sql string) {
		t.Helper()
		if err := execute(sql); postgres.Constraint(err) != name {
			t.Errorf("%s: %v, want %s", sql, err, name)
		}
	}
	refused("orders_sum", order)
	refused("orders_sum", order+line+`(0, 2, 2)) AS l (n, quantity, unit_amount)`)
	refused("orders_sum", order+line+`(0, 5, 2)) AS l (n, quantity, unit_amount)`)
	refused("orders_sum", order+line+lines+`UPDATE orders SET amount = 6`)
	refused("order_lines_whole", order+line+`(1, 5, 1)) AS l (n, quantity, unit_amount)`)
	// What counts is how the transaction ends.
	if err := execute(order + `UPDATE orders SET amount = 6; UPDATE orders SET amount = 5;` + line + lines); err != nil {
		t.Fatal(err)
	}
	refused("orders_sum", `UPDATE orders SET amount = 6`)
	refused("order_lines_pkey", line+`(0, 1, 1)) AS l (n, quantity, unit_amount)`)
	refused("order_lines_whole", line+`(2, 1, 1)) AS l (n, quantity, unit_amount)`)
	refused("order_lines_whole", `UPDATE orders SET amount = 6;`+line+`(2, 1, 1)) AS l (n, quantity, unit_amount)`)
	for _, sql := range []string{`UPDATE order_lines SET quantity = 3`, `DELETE FROM order_lines`, `TRUNCATE order_lines`} {
		if err := execute(sql); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
