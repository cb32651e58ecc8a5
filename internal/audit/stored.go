package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/webhook"
)

// stored is a table whose rows go through their constructor again. read gives each
// row's name first, and then the columns of row.
type stored struct {
	what, read string
	row        func() (columns []any, refusal func() error)
}

var tables = []stored{
	{"merchant", `SELECT 'merchant ' || id, id, name FROM merchants`, merchantRow},
	{"API key", `
		SELECT 'API key ' || id, id, coalesce(merchant_id, ''), role, coalesce(holder, ''), to_char(api_version, 'YYYY-MM-DD'), networks::text[], coalesce(expires_at > created_at, true) FROM api_keys`, keyRow},
	{"order", `
		SELECT 'order ' || o.id, o.id, o.reference, o.customer_reference, o.currency, o.amount, p.payment_method, p.capture_method,
			o.created_at < (SELECT min(tstamp) FROM goose_db_version WHERE version_id = 24 AND is_applied), l.skus, l.quantities, l.amounts
		FROM orders o JOIN payments p ON p.merchant_id = o.merchant_id AND p.order_id = o.id,
			LATERAL (SELECT array_agg(sku::text ORDER BY line) AS skus, array_agg(quantity ORDER BY line) AS quantities,
				array_agg(unit_amount::bigint ORDER BY line) AS amounts
			         FROM order_lines WHERE merchant_id = o.merchant_id AND order_id = o.id) l`, orderRow},
	{"payment", `
		SELECT 'payment ' || p.id, p.id, p.status, p.currency, p.amount, p.amount_captured, p.amount_refunded, p.amount_refunding, p.payment_method, p.capture_method,
			coalesce(p.failure_code, ''), coalesce(p.failure_step, ''), coalesce(p.failure_message, ''), (p.amount, p.currency) = (o.amount, o.currency)
		FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id`, paymentRow},
	{"refund", `SELECT 'refund ' || id, id, amount, coalesce(reason, ''), status, coalesce(failure_code, '') FROM refunds`, refundRow},
	{"stock", `SELECT 'stock ' || sku || ' of ' || merchant_id, merchant_id, sku, on_hand, on_hand + reserved FROM stock`, stockRow},
	// A key with a space is the service's own, of callers without a merchant.
	{"idempotency key", `SELECT 'key ' || key || ' of ' || merchant_id, key FROM idempotency_keys WHERE strpos(key, ' ') = 0`, idempotencyRow},
	{"webhook endpoint", `SELECT 'webhook endpoint ' || id, id, url, events FROM webhook_endpoints`, endpointRow},
}

// revalidate sends every stored row through its constructor, one at a time.
func revalidate(ctx context.Context, tx pgx.Tx) (findings []Finding, err error) {
	for _, s := range tables {
		f := Finding{Invariant: 10, Name: "every stored " + s.what + " passes its constructor"}
		rows, err := tx.Query(ctx, s.read)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		var name string
		columns, refusal := s.row()
		if _, err := pgx.ForEachRow(rows, append([]any{&name}, columns...), func() error {
			f.Counted++
			if err := refusal(); err != nil {
				f.violate("%s: %v", name, err)
			}
			return nil
		}); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		findings = append(findings, f)
	}
	return findings, nil
}

// all joins what is wrong with a row on one line.
func all(refusals ...error) error {
	var told []string
	for _, err := range refusals {
		if err != nil {
			told = append(told, err.Error())
		}
	}
	if told == nil {
		return nil
	}
	return errors.New(strings.Join(told, "; "))
}

func unless(ok bool, otherwise string) error {
	if ok {
		return nil
	}
	return errors.New(otherwise)
}

func identified(prefix, id string) error {
	return unless(payment.ValidID(prefix, id), "the id is no "+prefix+"_…")
}

func merchantRow() ([]any, func() error) {
	var id, name string
	return []any{&id, &name}, func() error {
		return all(identified(payment.PrefixMerchant, id), payment.CheckText(name, payment.MaxReference))
	}
}

func keyRow() ([]any, func() error) {
	var k access.Key
	var networks []string
	var lives bool
	return []any{&k.ID, &k.MerchantID, &k.Role, &k.Holder, &k.APIVersion, &networks, &lives}, func() error {
		k.Networks = k.Networks[:0]
		for _, n := range networks {
			p, err := access.ParseNetwork(n)
			if err != nil {
				return fmt.Errorf("a network %w", err)
			}
			k.Networks = append(k.Networks, p)
		}
		return all(k.Check(), unless(lives, "it expired before it was made"))
	}
}

func orderRow() ([]any, func() error) {
	var id string
	var d payment.Draft
	var before bool // there were business keys (migration 24): the references stay as they were written
	var skus []string
	var quantities, amounts []int64
	columns := []any{
		&id, &d.OrderReference, &d.CustomerReference, &d.Currency, &d.Amount, &d.PaymentMethod, &d.CaptureMethod, &before, &skus, &quantities, &amounts,
	}
	return columns, func() error {
		d.Lines = d.Lines[:0]
		for n := range skus {
			d.Lines = append(d.Lines, payment.DraftLine{SKU: skus[n], Quantity: quantities[n], UnitAmount: amounts[n]})
		}
		if before {
			_, err := payment.StoredOrder(d)
			return all(identified(payment.PrefixOrder, id), err)
		}
		o, err := payment.NewOrder(d)
		return all(identified(payment.PrefixOrder, id), err,
			unless(err != nil || o.Reference() == d.OrderReference && o.CustomerReference() == d.CustomerReference && sameSKUs(o.Lines(), skus), "a name is no business key"))
	}
}

func sameSKUs(lines []payment.Line, skus []string) bool {
	return slices.EqualFunc(lines, skus, func(l payment.Line, sku string) bool { return l.SKU() == sku })
}

func paymentRow() ([]any, func() error) {
	var id, status, code, method, capture string
	var f payment.Failure
	var amounts [4]int64
	var asOrdered bool
	columns := []any{
		&id, &status, &code, &amounts[0], &amounts[1], &amounts[2], &amounts[3], &method, &capture, &f.Code, &f.Step, &f.Message, &asOrdered,
	}
	return columns, func() error {
		_, known := payment.ParseStatus(status)
		_, captured := payment.ParseCaptureMethod(capture)
		wrong := []error{
			identified(payment.PrefixPayment, id), unless(known, "the status is none"), unless(captured, "the capture method is none"),
			payment.CheckPaymentMethod(method), unless(asOrdered, "the amount or currency is not the order's"),
			unless(f == (payment.Failure{}) || f.Code != "" && f.Step != "" && f.Message != "", "the failure is told in part"),
			unless(payment.Status(status) != payment.StatusFailed || f.Code != "", "it failed without a reason"),
		}
		currency, err := payment.ParseCurrency(code)
		if err != nil {
			return all(append(wrong, fmt.Errorf("the currency %w", err))...)
		}
		for _, amount := range amounts {
			if _, err := payment.NewMoney(amount, currency); err != nil {
				wrong = append(wrong, fmt.Errorf("an amount %w", err))
			}
		}
		return all(wrong...)
	}
}

func refundRow() ([]any, func() error) {
	var id, reason, status, code string
	var amount int64
	return []any{&id, &amount, &reason, &status, &code}, func() error {
		_, err := payment.NewRefund(&amount, reason)
		s, known := payment.ParseRefundStatus(status)
		return all(identified(payment.PrefixRefund, id), err, unless(known, "the status is none"),
			unless((s == payment.RefundFailed) == (code != ""), "the failure does not fit the status"))
	}
}

func stockRow() ([]any, func() error) {
	var merchantID, sku string
	var onHand, most int64
	return []any{&merchantID, &sku, &onHand, &most}, func() error {
		s, err := payment.NewStock("", merchantID, sku, onHand)
		return all(err, unless(err != nil || s.SKU() == sku, "the sku is no business key"), unless(most <= payment.MaxOnHand, "more is on hand and reserved than may be on hand"))
	}
}

func idempotencyRow() ([]any, func() error) {
	var key string
	quoting := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	return []any{&key}, func() error {
		_, err := idempotency.ParseKey([]string{`"` + quoting.Replace(key) + `"`})
		return err
	}
}

func endpointRow() ([]any, func() error) {
	var id, url string
	var events []string
	return []any{&id, &url, &events}, func() error {
		// Which networks may be delivered to is for each delivery to say, and not for the row.
		_, err := webhook.NewDraft(webhook.Guard{AllowPrivate: true}, url, events)
		return all(identified(payment.PrefixEndpoint, id), err)
	}
}
