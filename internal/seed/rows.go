package seed

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"payments/internal/payment"
	"payments/internal/readmodel/term"
	"payments/internal/secret"
)

// table is one COPY in its text format.
type table struct {
	name, columns string
	rows          bytes.Buffer
	count         int64
}

// writeTables in the order of their references, and then the read model's.
func writeTables() []*table {
	return []*table{
		{name: "orders", columns: "merchant_id, id, reference, customer_reference, currency, amount, status, sequence, created_at, updated_at"},
		{name: "order_lines", columns: "merchant_id, order_id, line, sku, quantity, unit_amount"},
		{name: "payments", columns: "merchant_id, id, order_id, status, currency, amount, amount_captured, amount_refunded, payment_method, " +
			"payment_method_ciphertext, capture_method, authorization_reference, capture_reference, failure_code, failure_step, failure_message, created_at, updated_at"},
		{name: "refunds", columns: "merchant_id, id, payment_id, amount, reason, status, created_at, updated_at"},
		{name: "stock_reservations", columns: "merchant_id, order_id, sku, quantity, state"},
		{name: "sagas", columns: "merchant_id, id, definition, version, subject, state, step, rejection, abortable, data, created_at, updated_at"},
		{name: "outbox_dropped", columns: "key, sequence"},
	}
}

func readTables() []*table {
	return []*table{
		{name: "payment_view", columns: "merchant_id, payment_id, order_id, sequence, status, currency, amount, amount_captured, amount_refunded, payment_method, " +
			"payment_method_ciphertext, capture_method, customer_reference, order_reference, lines, failure, failure_code, created_at, updated_at"},
		{name: "refund_view", columns: "merchant_id, payment_id, refund_id, amount, reason, status, created_at, updated_at"},
		{name: "payment_term", columns: "merchant_id, term, payment_id"},
		{name: "payment_timeline", columns: "merchant_id, payment_id, sequence, event_id, type, data, occurred_at"},
	}
}

var copyEscapes = strings.NewReplacer("\\", `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

// add writes one row; an empty text is NULL, which no column of ours keeps as a text.
func (t *table) add(values ...any) {
	for i, v := range values {
		if i > 0 {
			t.rows.WriteByte('\t')
		}
		switch v := v.(type) {
		case string:
			switch {
			case v == "":
				t.rows.WriteString(`\N`)
			case strings.ContainsAny(v, "\\\t\n\r"):
				t.rows.WriteString(copyEscapes.Replace(v))
			default:
				t.rows.WriteString(v)
			}
		case int64:
			t.rows.Write(strconv.AppendInt(t.rows.AvailableBuffer(), v, 10))
		case time.Time:
			t.rows.Write(v.UTC().AppendFormat(t.rows.AvailableBuffer(), "2006-01-02 15:04:05.999999Z"))
		}
	}
	t.rows.WriteByte('\n')
	t.count++
}

// article is what one batch takes of a merchant's stock.
type article struct{ merchantID, sku string }

// batch is payments that are written in one transaction of each database.
type batch struct {
	written, projected []*table
	sold               map[article]int64
	payments           int
}

func newBatch() *batch {
	return &batch{written: writeTables(), projected: readTables(), sold: map[article]int64{}}
}

func (b *batch) add(l life, methods *secret.Tokens, timeline []string) error {
	o, total := l.order, l.order.Total()
	amount, currency, sequence := total.Amount(), total.Currency().String(), int64(len(l.events))
	status, state, sagaState := "failed", "released", "compensated"
	captured, capture, authorization := int64(0), "", ""
	switch l.status { //nolint:exhaustive // seeded payments have ended
	case payment.StatusSucceeded:
		status, state, sagaState = "confirmed", "sold", "completed"
		captured, authorization, capture = amount, "seed_a"+l.paymentID[4:], "seed_c"+l.paymentID[4:]
	case payment.StatusCanceled:
		status, authorization = "canceled", "seed_a"+l.paymentID[4:]
	}
	rejection, lastStep := "", "confirm_order"
	if sagaState == "compensated" {
		lastStep = "release_stock"
		rejection = `{"step": "authorize_payment", "code": "canceled"}`
		if l.failure.Code != "" {
			rejection = fmt.Sprintf(`{"step": %q, "code": %q, "detail": %q}`, l.failure.Step, l.failure.Code, l.failure.Message)
		}
	}
	method, sealed, err := methods.Seal(o.PaymentMethod(), l.paymentID)
	if err != nil {
		return fmt.Errorf("seed an order: %w", err)
	}
	ciphertext := `\x` + hex.EncodeToString(sealed)
	b.written[0].add(l.merchantID, l.orderID, o.Reference(), o.CustomerReference(), currency, amount, status, sequence, l.createdAt, l.updatedAt)
	quantities, order := map[string]int64{}, []string{}
	lines := make([]payment.LineData, 0, len(o.Lines()))
	for n, line := range o.Lines() {
		b.written[1].add(l.merchantID, l.orderID, int64(n), line.SKU(), line.Quantity(), line.UnitAmount())
		if quantities[line.SKU()] == 0 {
			order = append(order, line.SKU())
		}
		quantities[line.SKU()] += line.Quantity()
		lines = append(lines, payment.LineData{SKU: line.SKU(), Quantity: line.Quantity(), UnitAmount: line.UnitAmount()})
	}
	b.written[2].add(l.merchantID, l.paymentID, l.orderID, string(l.status), currency, amount, captured, l.refund.amount, method, ciphertext, string(o.CaptureMethod()),
		authorization, capture, l.failure.Code, l.failure.Step, l.failure.Message, l.createdAt, l.updatedAt)
	data := fmt.Sprintf(`{"merchant_id": %q, "order_id": %q, "payment_id": %q, "amount": %d, "currency": %q}`, l.merchantID, l.orderID, l.paymentID, amount, currency)
	b.written[5].add(l.merchantID, l.sagaID, "order", int64(1), l.orderID, sagaState, lastStep, rejection, "false", data, l.createdAt, l.endedAt)
	if !l.stockRejected {
		for _, sku := range order {
			b.written[4].add(l.merchantID, l.orderID, sku, quantities[sku], state)
			if state == "sold" {
				b.sold[article{l.merchantID, sku}] += quantities[sku]
			}
		}
	}
	if l.refund.id != "" {
		requested := l.updatedAt.Add(-time.Second)
		b.written[3].add(l.merchantID, l.refund.id, l.paymentID, l.refund.amount, "returned", "succeeded", requested, l.updatedAt)
		b.written[5].add(l.merchantID, l.refund.sagaID, "refund", int64(1), l.refund.id, "completed", "refund_payment", "", "false", data, requested, l.updatedAt)
		b.projected[1].add(l.merchantID, l.paymentID, l.refund.id, l.refund.amount, "returned", "succeeded", requested, l.updatedAt)
	}
	b.written[6].add(l.orderID, sequence)
	document, err := json.Marshal(lines)
	if err != nil {
		return err
	}
	failure := ""
	if l.failure.Code != "" {
		f, err := json.Marshal(l.failure)
		if err != nil {
			return err
		}
		failure = string(f)
	}
	b.projected[0].add(l.merchantID, l.paymentID, l.orderID, sequence, string(l.status), currency, amount, captured, l.refund.amount, method, ciphertext,
		string(o.CaptureMethod()), o.CustomerReference(), o.Reference(), string(document), failure, l.failure.Code, l.createdAt, l.updatedAt)
	for _, t := range term.Of(o.Reference(), o.CustomerReference()) {
		b.projected[2].add(l.merchantID, t, l.paymentID)
	}
	for n, id := range timeline {
		at := l.createdAt.Add(time.Duration(n) * l.endedAt.Sub(l.createdAt) / time.Duration(len(timeline)))
		told := payment.StatusProcessing
		if n >= 5 || n == len(l.events)-1 {
			told, at = l.status, l.updatedAt
		}
		b.projected[3].add(l.merchantID, l.paymentID, int64(n+1), id, string(l.events[n]),
			fmt.Sprintf(`{"merchant_id": %q, "order_id": %q, "payment_id": %q, "status": %q}`, l.merchantID, l.orderID, l.paymentID, told), at)
	}
	b.payments++
	return nil
}
