package order_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// errUndo ends a transaction that was only to see whether its rows are accepted.
var errUndo = errors.New("undo")

// boundary is one value at the edge of a rule; valid is the one verdict that every
// layer has to give.
type boundary struct {
	member string
	value  any
	valid  bool
}

func boundaries() []boundary {
	long := func(n int) string { return strings.Repeat("x", n) }
	text := func(member string) []boundary {
		return []boundary{
			{member, "", false}, {member, "x", true}, {member, long(64), true}, {member, long(65), false}, {member, strings.Repeat("ü", 64), true},
			{member, strings.Repeat("ü", 65), false}, {member, "a\nb", false}, {member, "a\x01b", false}, {member, "a\x7fb", false},
			{member, "a\u0085b", false}, {member, "a\u00a0b", true}, {member, " ", true}, {member, "日本 🎁", true},
		}
	}
	return slices.Concat(text("order_reference"), text("customer_reference"), text("reason"), []boundary{
		{"sku", "", false}, {"sku", "A", true}, {"sku", long(64), true}, {"sku", long(65), false}, {"sku", ".a", false}, {"sku", "a._-", true},
		{"sku", "ä", false}, {"sku", "a b", false}, {"sku", "a\n", false},
		{"payment_method", "pm_", false}, {"payment_method", "pm_x", true}, {"payment_method", "pm_" + long(61), true},
		{"payment_method", "pm_" + long(62), false}, {"payment_method", "4111111111111111", false}, {"payment_method", "pm_a\n", false},
		{"capture_method", "automatic", true}, {"capture_method", "manual", true}, {"capture_method", "later", false},
		{"currency", "EUR", true}, {"currency", "eur", false}, {"currency", "XXX", false}, {"currency", "XAU", false}, {"currency", "JPY", true},
		{"currency", "KWD", true}, {"currency", "EU", false}, {"currency", "EURO", false}, {"currency", "", false},
		{"quantity", int64(0), false}, {"quantity", int64(1), true}, {"quantity", int64(payment.MaxQuantity), true}, {"quantity", int64(payment.MaxQuantity + 1), false},
		{"quantity", int64(-1), false},
		// A line of nothing beside one that is paid for.
		{"unit_amount", int64(-1), false}, {"unit_amount", int64(0), true}, {"unit_amount", payment.MaxAmount - 1, true}, {"unit_amount", payment.MaxAmount + 1, false},
		{"amount", int64(0), false}, {"amount", int64(1), true}, {"amount", payment.MaxAmount, true}, {"amount", payment.MaxAmount + 1, false}, {"amount", int64(-1), false},
		{"on_hand", int64(-1), false}, {"on_hand", int64(0), true}, {"on_hand", payment.MaxOnHand, true}, {"on_hand", payment.MaxOnHand + 1, false},
		{"refund", int64(0), false}, {"refund", int64(1), true}, {"refund", payment.MaxAmount, true}, {"refund", payment.MaxAmount + 1, false},
		{"line", 0, true}, {"line", 99, true}, {"line", 100, false}, {"line", -1, false},
	})
}

// byDomain sends the value to the constructor.
func (b boundary) byDomain(merchantID string) error {
	d := payment.Draft{
		Amount: 1, Currency: "EUR", PaymentMethod: "pm_x", CustomerReference: "c", OrderReference: "o",
		Lines: []payment.DraftLine{{SKU: "A", Quantity: 1, UnitAmount: 1}},
	}
	var err error
	switch b.member {
	case "order_reference":
		d.OrderReference, _ = b.value.(string)
	case "customer_reference":
		d.CustomerReference, _ = b.value.(string)
	case "payment_method":
		d.PaymentMethod, _ = b.value.(string)
	case "capture_method":
		d.CaptureMethod, _ = b.value.(string)
	case "currency":
		d.Currency, _ = b.value.(string)
	case "sku":
		d.Lines[0].SKU, _ = b.value.(string)
	case "quantity":
		d.Lines[0].Quantity, _ = b.value.(int64)
		d.Amount = max(d.Lines[0].Quantity, 1)
	case "unit_amount":
		v, _ := b.value.(int64)
		d.Lines = append(d.Lines, payment.DraftLine{SKU: "B", Quantity: 1, UnitAmount: v})
		d.Amount = max(v+1, 1)
	case "amount":
		d.Amount, _ = b.value.(int64)
		d.Lines[0].UnitAmount = d.Amount
	case "line": // the index of the last of so many lines
		n, _ := b.value.(int)
		d.Lines = nil
		for range n + 1 {
			d.Lines = append(d.Lines, payment.DraftLine{SKU: "A", Quantity: 1, UnitAmount: 1})
		}
		d.Amount = max(int64(n)+1, 1)
	case "on_hand":
		v, _ := b.value.(int64)
		_, err = payment.NewStock("", merchantID, "A", v)
		return err
	case "refund":
		v, _ := b.value.(int64)
		_, err = payment.NewRefund(&v, "")
		return err
	case "reason":
		v, _ := b.value.(string)
		if v == "" { // for the domain it is none, and the API refuses it
			return errUndo
		}
		_, err = payment.NewRefund(nil, v)
		return err
	default:
		return fmt.Errorf("no constructor takes %s", b.member)
	}
	_, err = payment.NewOrder(d)
	return err
}

// bySQL inserts an order, its line, payment, refund and stock with the value, as
// nobody's code but a person at a prompt would.
func (b boundary) bySQL(ctx context.Context, w *world) error {
	v := map[string]any{
		"order_reference": "o", "customer_reference": "c", "payment_method": "pm_x", "capture_method": "automatic", "currency": "EUR", "sku": "A",
		"quantity": 1, "unit_amount": 1, "amount": 1, "on_hand": 1, "refund": 1, "reason": "r", "line": 0,
	}
	v[b.member] = b.value
	order, pay, ref := w.ids.New(payment.PrefixOrder), w.ids.New(payment.PrefixPayment), w.ids.New(payment.PrefixRefund)
	err := postgres.InTx(ctx, w.pool, func(tx pgx.Tx) error {
		for _, s := range []struct {
			sql  string
			args []any
		}{
			{`INSERT INTO orders (merchant_id, id, reference, customer_reference, currency, amount, status, sequence, created_at)
				VALUES ($1, $2, $3, $4, $5, $6, 'placed', 1, now())`, []any{w.merchant, order, v["order_reference"], v["customer_reference"], v["currency"], v["amount"]}},
			{`INSERT INTO order_lines VALUES ($1, $2, $3, $4, $5, $6)`, []any{w.merchant, order, v["line"], v["sku"], v["quantity"], v["unit_amount"]}},
			{`INSERT INTO payments (merchant_id, id, order_id, status, currency, amount, payment_method, capture_method, created_at)
				VALUES ($1, $2, $3, 'processing', $4, $5, $6, $7, now())`, []any{w.merchant, pay, order, v["currency"], v["amount"], v["payment_method"], v["capture_method"]}},
			{`INSERT INTO refunds (merchant_id, id, payment_id, amount, reason, status, created_at) VALUES ($1, $2, $3, $4, $5, 'pending', now())`,
				[]any{w.merchant, ref, pay, v["refund"], v["reason"]}},
			{`INSERT INTO stock (merchant_id, sku, received, on_hand) VALUES ($1, $2, $3, $3)`, []any{w.merchant, "of-the-table", v["on_hand"]}},
		} {
			if _, err := tx.Exec(ctx, s.sql, s.args...); err != nil {
				return err
			}
		}
		return errUndo
	})
	if errors.Is(err, errUndo) {
		return nil
	}
	return err
}

// One table, one verdict: the constructor's and the database's.
func TestBoundariesAgree(t *testing.T) {
	w := newWorld(t)
	for _, b := range boundaries() {
		if err := b.byDomain(w.merchant); (err == nil) != b.valid {
			t.Errorf("%s %.80q: the domain says %v", b.member, fmt.Sprint(b.value), err)
		}
		if err := b.bySQL(t.Context(), w); (err == nil) != b.valid || err != nil && !postgres.DataError(err) {
			t.Errorf("%s %.80q: the database says %v", b.member, fmt.Sprint(b.value), err)
		}
	}
}

// Every code of three capitals has the same verdict in both.
func TestCurrenciesAgree(t *testing.T) {
	w := newWorld(t)
	var known []string
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			for c := 'A'; c <= 'Z'; c++ {
				if code := string([]rune{a, b, c}); func() bool { _, err := payment.ParseCurrency(code); return err == nil }() {
					known = append(known, code)
				}
			}
		}
	}
	if stored := one[[]string](w, `SELECT array_agg(c ORDER BY c) FROM unnest(currencies()) AS c`); !slices.Equal(stored, known) {
		t.Errorf("the database knows %v, the domain %v", stored, known)
	}
}

// A payment's status moves in the database as the domain's state machine has it.
func TestTransitionsAgree(t *testing.T) {
	w := newWorld(t)
	all := []payment.Status{
		payment.StatusProcessing, payment.StatusRequiresCapture, payment.StatusRequiresReview, payment.StatusSucceeded, payment.StatusFailed, payment.StatusCanceled,
	}
	set := `UPDATE payments SET status = $2, amount_captured = CASE WHEN $2 = 'succeeded' THEN amount ELSE amount_captured END,
		failure_code = 'x', failure_step = 'x', failure_message = 'x' WHERE id = $1`
	for _, from := range all {
		for _, to := range all {
			id := w.placed("pm_card_visa", payment.CaptureManual)
			if from != payment.StatusProcessing {
				w.exec(set, id, from)
			}
			_, err := w.pool.Exec(t.Context(), set, id, to)
			if may := from == to || from.CanBecome(to); (err == nil) != may || err != nil && postgres.Constraint(err) != "payments_transition" {
				t.Errorf("from %s to %s: %v", from, to, err)
			}
		}
	}
}
