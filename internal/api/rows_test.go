package api

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
)

type row struct {
	table  string
	values map[string]any
}

// written inserts a row of each table, with the given values in place of its own
// (table.column), hands the rows' places to then, and undoes all of it.
func (w *boundaryWorld) written(given map[string]any, then func(tx pgx.Tx, ctid map[string]string) error) error {
	w.t.Helper()
	merchant, now := w.ids.New(payment.PrefixMerchant), time.Now()
	id := func(prefix string) string { return w.ids.New(prefix) }
	order, pay, ref, saga := id(payment.PrefixOrder), id(payment.PrefixPayment), id(payment.PrefixRefund), id(payment.PrefixSaga)
	endpoint, delivery, key := id(payment.PrefixEndpoint), id(payment.PrefixDelivery), id(payment.PrefixKey)
	errUndo := errors.New("undo")
	ctid := map[string]string{}
	err := postgres.InTx(w.t.Context(), w.prompt, func(tx pgx.Tx) error {
		// One account inherits at most, and the API's own may: all is undone.
		if _, err := tx.Exec(w.t.Context(), `UPDATE provider_accounts SET inherits = false`); err != nil {
			return err
		}
		for _, r := range []row{
			{"merchants", map[string]any{"id": merchant, "name": "Shop"}},
			{"api_keys", map[string]any{"id": key, "role": "auditor", "holder": "ada", "mac": make([]byte, 32), "approved_at": now}},
			{"key_acts", map[string]any{"id": id(payment.PrefixKeyAct), "key_id": key, "action": "make", "source": "seed", "origin": "o"}},
			{"idempotency_keys", map[string]any{
				"merchant_id": merchant, "key": "k", "fingerprint": make([]byte, 32), "resource_id": pay, "status": 202, "header": "{}", "body": []byte("{}"),
			}},
			{"orders", map[string]any{
				"merchant_id": merchant, "id": order, "reference": "o", "customer_reference": "c", "currency": "EUR", "amount": 1, "status": "placed", "sequence": 1,
				"created_at": now,
			}},
			{"order_lines", map[string]any{"merchant_id": merchant, "order_id": order, "line": 0, "sku": "A", "quantity": 1, "unit_amount": 0}},
			{"payments", map[string]any{
				"merchant_id": merchant, "id": pay, "order_id": order, "status": "processing", "currency": "EUR", "amount": 1, "payment_method": "pm_x",
				"capture_method": "automatic", "created_at": now,
			}},
			{"refunds", map[string]any{"merchant_id": merchant, "id": ref, "payment_id": pay, "amount": 1, "status": "pending", "provider_reference": "op_1", "created_at": now}},
			{"staff_refunds", map[string]any{
				"merchant_id": merchant, "refund_id": ref, "payment_id": pay, "operator": key, "holder": "ada", "currency": "EUR", "amount": 1, "day": now,
			}},
			{"disputes", map[string]any{
				"merchant_id": merchant, "id": id(payment.PrefixDispute), "payment_id": pay, "provider_reference": "op_1", "status": "open", "amount": 1, "currency": "EUR",
				"reason": "r",
			}},
			{"provider_changes", map[string]any{
				"merchant_id": merchant, "id": id(payment.PrefixChange), "payment_id": pay, "kind": "k", "subject": "op_1", "amount": 1, "detail": "d", "state": "open",
			}},
			{"provider_comparisons", map[string]any{"name": "n", "range_from": now, "range_to": now}},
			{"stock", map[string]any{"merchant_id": merchant, "sku": "A", "received": 1, "on_hand": 1}},
			{"webhook_endpoints", map[string]any{"merchant_id": merchant, "id": endpoint, "url": hookURL, "events": []string{"*"}}},
			{"webhook_secrets", map[string]any{"merchant_id": merchant, "endpoint_id": endpoint, "number": 1, "ciphertext": []byte{}}},
			{"webhook_deliveries", map[string]any{
				"merchant_id": merchant, "id": delivery, "endpoint_id": endpoint, "event_id": "e", "event_type": "order.placed", "payment_id": pay, "body": []byte("{}"),
			}},
			{"webhook_missed", map[string]any{
				"merchant_id": merchant, "endpoint_id": endpoint, "event_id": "e", "event_type": "order.placed", "payment_id": pay, "body": []byte("{}"),
			}},
			{"webhook_attempts", map[string]any{
				"merchant_id": merchant, "delivery_id": delivery, "number": 1, "started_at": now, "duration_ms": 1, "outcome": "timeout", "detail": "d",
			}},
			{"sagas", map[string]any{
				"merchant_id": merchant, "id": saga, "definition": "order", "version": 1, "subject": order, "state": "running", "step": "s", "abortable": true,
				"data": "{}", "due_at": now,
			}},
			{"saga_actions", map[string]any{
				"merchant_id": merchant, "saga_id": saga, "number": 1, "action": "propose", "operator": "key", "holder": "ada", "reason": "r", "step": "s",
				"verdict": map[string]any{"verdict": "succeeded", "reference": "op_1"},
			}},
			{"saga_attempts", map[string]any{
				"merchant_id": merchant, "saga_id": saga, "number": 1, "step": "s", "call": "local", "epoch": 1, "owner": "o", "started_at": now,
			}},
			{"provider_accounts", map[string]any{"account": "simulator:led_1", "inherits": true}},
			{"saga_definitions", map[string]any{"name": "d", "version": 1, "hash": make([]byte, 32)}},
			{"outbox", map[string]any{
				"merchant_id": merchant, "id": id(payment.PrefixEvent), "topic": "t", "key": order, "key_hash": 1, "sequence": 1, "headers": []string{}, "payload": []byte{},
			}},
			{"outbox_dropped", map[string]any{"key": order, "sequence": 1}},
			{"outbox_lost", map[string]any{
				"event_id": "e", "key": order, "sequence": 1, "type": "order.placed", "log_partition": 0, "log_offset": 0, "timeline": 2,
			}},
			{"outbox_relays", map[string]any{"owner": "o", "lease_until": now}},
			{"payment_view", map[string]any{
				"merchant_id": merchant, "payment_id": pay, "order_id": order, "sequence": 1, "status": "processing", "currency": "EUR", "amount": 1, "payment_method": "pm_x",
				"customer_reference": "c", "order_reference": "o", "lines": "[]", "created_at": now, "updated_at": now,
			}},
			{"refund_view", map[string]any{
				"merchant_id": merchant, "payment_id": pay, "refund_id": ref, "amount": 1, "status": "pending", "created_at": now, "updated_at": now,
			}},
			{"payment_timeline", map[string]any{
				"merchant_id": merchant, "payment_id": pay, "sequence": 1, "event_id": "e", "type": "t", "data": "{}", "occurred_at": now,
			}},
			{"payment_term", map[string]any{"merchant_id": merchant, "term": "o", "payment_id": pay}},
			{"feed_heads", map[string]any{"merchant_id": merchant, "position": 1}},
			{"feed_events", map[string]any{"merchant_id": merchant, "position": 1, "payment_id": pay, "sequence": 1}},
			{"report_refreshes", map[string]any{"started_at": now, "ended_at": now, "every": "1 minute", "seconds": "{}"}},
			{"inbox_messages", map[string]any{"consumer": "c", "made_on": now, "message_id": "e"}},
			{"inbox_offsets", map[string]any{"consumer": "c", "topic": "t", "partition": 0, "generation": 1}},
			{"inbox_parked_keys", map[string]any{"id": "prk_1", "consumer": "c", "topic": "t", "key": []byte{}, "fingerprint": "f"}},
			{"inbox_parked", map[string]any{
				"parked_key": "prk_1", "offset": 0, "partition": 0, "headers": "{}", "value": []byte{}, "reason": "r",
			}},
			{"inbox_discarded", map[string]any{
				"parked_key": "prk_1", "consumer": "c", "topic": "t", "partition": 0, "offset": 0, "key": []byte{}, "headers": "{}", "value": []byte{}, "error": "e",
				"parked_at": now, "discarded_by": "key", "holder": "ada", "reason": "r",
			}},
		} {
			for name, v := range given {
				if table, column, _ := strings.Cut(name, "."); table == r.table {
					r.values[column] = v
				}
			}
			if r.table == "api_keys" && r.values["role"] == "merchant" && r.values["merchant_id"] == nil {
				r.values["merchant_id"] = merchant
			}
			if on, ok := r.values["on_hand"]; ok {
				r.values["received"] = on
			}
			r.addUp(given)
			at, err := r.insert(w, tx)
			if err != nil {
				return err
			}
			ctid[r.table] = at
		}
		if then != nil {
			if err := then(tx, ctid); err != nil {
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

// addUp makes the order what its lines come to: one of nothing, unless it is given to
// be something, and one of 1 (insert).
func (r row) addUp(given map[string]any) {
	amount, hasAmount := given["orders.amount"].(int64)
	unit, hasUnit := given["order_lines.unit_amount"].(int64)
	switch {
	case r.table == "orders" && hasUnit:
		r.values["amount"] = min(max(unit+1, 1), payment.MaxAmount)
	case r.table == "order_lines" && hasAmount:
		r.values["unit_amount"] = amount - 1
	}
}

func (r row) insert(w *boundaryWorld, tx pgx.Tx) (ctid string, err error) {
	names := slices.Sorted(maps.Keys(r.values))
	args, columns, places := make([]any, len(names)), make([]string, len(names)), make([]string, len(names))
	for i, name := range names {
		args[i], columns[i], places[i] = r.values[name], pgx.Identifier{name}.Sanitize(), "$"+strconv.Itoa(i+1)
	}
	values := `(` + strings.Join(places, ", ") + `)`
	if r.table == "order_lines" {
		values += `, (CASE $1 WHEN 0 THEN 50 ELSE 0 END, $2, $3, 1, 'B', 1)`
	}
	err = tx.QueryRow(w.t.Context(), `INSERT INTO `+r.table+` (`+strings.Join(columns, ", ")+`) VALUES `+values+` RETURNING ctid::text`, args...).Scan(&ctid)
	return ctid, err
}
