package api

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// mapped constraints answer a request that runs into them with the problem of this code.
func mapped() map[string]struct {
	code    payment.Code
	request func(w *boundaryWorld) answer
} {
	return map[string]struct {
		code    payment.Code
		request func(w *boundaryWorld) answer
	}{
		"orders_one_live_or_won_key": {payment.CodeOrderInProgress, func(w *boundaryWorld) answer {
			w.placed("taken", "")
			return w.post(w.merchant, strings.Replace(good, "A-1001", "taken", 1), key(w.fresh())...)
		}},
		"payments_refunds_bounded": {payment.CodeRefundExceeds, func(w *boundaryWorld) answer {
			id := w.placed("refunded", "")
			w.make(id, payment.StatusSucceeded)
			return w.do("POST", "/v1/payments/"+id+"/refunds", w.merchant, `{"amount": 4999}`, key(w.fresh())...)
		}},
		"idempotency_keys_pkey": {payment.CodeKeyInUse, func(w *boundaryWorld) answer {
			tx, err := w.pool.Begin(w.t.Context())
			if err != nil {
				w.t.Fatal(err)
			}
			defer tx.Rollback(w.t.Context())
			if _, err := idempotency.Begin(w.t.Context(), tx, idempotency.Request{MerchantID: w.merchantID, Key: "held"}); err != nil {
				w.t.Fatal(err)
			}
			return w.post(w.merchant, encode(w.payment()), key("held")...)
		}},
		"stock_merchant_id_fkey": {payment.CodeNotFound, func(w *boundaryWorld) answer {
			return w.do("PUT", "/v1/stock", w.operator, `{"merchant": "mer_`+freshID+`", "sku": "A", "on_hand": 1}`)
		}},
		"stock_room": {payment.CodeInvalid, func(w *boundaryWorld) answer {
			w.do("PUT", "/v1/stock", w.operator, `{"merchant": "`+w.merchantID+`", "sku": "ROOM", "on_hand": 1}`)
			if _, err := w.pool.Exec(w.t.Context(), `UPDATE stock SET on_hand = 0, reserved = 1 WHERE sku = 'ROOM'`); err != nil {
				w.t.Fatal(err)
			}
			a := w.do("PUT", "/v1/stock", w.operator, `{"merchant": "`+w.merchantID+`", "sku": "ROOM", "on_hand": 1000000000}`)
			if at := a.at(w.t, "errors.0.pointer"); at != "/on_hand" || strings.Contains(a.body, "ROOM") {
				w.t.Errorf("the answer names %v, or repeats what was submitted: %s", at, a.body)
			}
			return a
		}},
		"api_keys_merchant_id_fkey": {payment.CodeNotFound, func(w *boundaryWorld) answer {
			return w.do("POST", "/v1/ops/keys", w.operator, `{"mode": "test", "role": "merchant", "merchant": "mer_`+freshID+`"}`, key(w.fresh())...)
		}},
		"api_keys_expiry": {payment.CodeInvalid, func(w *boundaryWorld) answer {
			// A process whose clock is behind the database's.
			c := w.api
			c.IDs.Now = func() time.Time { return time.Now().Add(-time.Hour) }
			c.Registerer = prometheus.NewRegistry()
			now := w.server
			defer func() { w.server = now }()
			w.server = w.serve(c)
			return w.do("POST", "/v1/ops/keys", w.operator, `{"mode": "test", "role": "auditor", "holder": "ada", "expires_at": "`+
				time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)+`"}`, key(w.fresh())...)
		}},
	}
}

// unreachable constraints no request can violate: each is a fault of ours, and a
// 500 that is logged. A name may end in * for a part of the machinery.
var unreachable = map[string][]string{
	"the domain's constructors refuse the value before, by TestBoundariesAgree": {
		"minor_units_range", "reference_length", "reference_no_control", "orders_business_keys", "sku_format", "order_lines_line_check", "order_lines_quantity_check",
		"orders_amount_check", "orders_currency_check", "payments_amount_check", "payments_capture_method_check", "payments_currency_check",
		"payments_payment_method_check", "refunds_amount_check", "stock_on_hand_check", "idempotency_keys_key", "orders_customer_email", "merchants_id_check",
		"api_keys_holder", "api_keys_networks", "api_keys_role_check", "api_keys_merchant", "webhook_endpoints_url", "webhook_endpoints_events",
	},
	"orders_one_live_or_won_key is asked first, and refuses more":         {"orders_one_live_or_won"},
	"payment.NewOrder adds the lines up before, and nothing changes them": {"orders_sum", "order_lines_whole", "order_lines_append_only"},
	"the service makes the value, of a fixed form": {
		"orders_id_check", "payments_id_check", "payments_payment_method_fingerprint", "refunds_id_check", "api_keys_id_check", "api_keys_mac_check", "api_keys_replaced",
		"idempotency_keys_fingerprint_check", "idempotency_keys_status_check",
	},
	"the id is fresh, or the row is locked and its owner known": {
		"orders_pkey", "order_lines_pkey", "payments_pkey", "payments_merchant_id_order_id_key", "refunds_pkey", "stock_pkey",
		"stock_reservations_pkey", "api_keys_pkey", "merchants_pkey",
	},
	"the row that it names is written or locked in the same transaction": {
		"orders_merchant_id_fkey", "order_lines_merchant_id_order_id_fkey", "payments_merchant_id_order_id_fkey", "refunds_merchant_id_payment_id_fkey",
		"stock_reservations_merchant_id_order_id_fkey", "stock_reservations_merchant_id_sku_fkey", "api_keys_replaced_by_fkey",
	},
	"a state of the write model that only the saga's steps set": {
		"orders_sequence_check", "orders_status_check", "payments_captured_in_full", "payments_failure", "payments_manual", "payments_status_check",
		"payments_transition", "refunds_failure", "refunds_status_check", "refunds_transition", "stock_conserved", "stock_reserved_check", "stock_sold_check",
		"stock_reservations_quantity_check", "stock_reservations_state_check",
	},
	"an operator's verdict is compared with both before, and what a provider answers is of its payment or refund": {
		"payments_authorization_once", "payments_capture_once", "refunds_provider_reference",
	},
	"states that webhook.Store and the dispatcher set, fenced and locked": {
		"webhook_endpoints_id_check", "webhook_endpoints_pkey", "webhook_endpoints_merchant_id_fkey", "webhook_endpoints_exhausted_check",
		"webhook_endpoints_disabled*", "webhook_endpoints_url_*", "webhook_secrets_*", "webhook_deliveries_*", "webhook_attempts_*", "webhook_missed_*",
	},
	"the look at the provider writes the row, and the operator's reason for accepting it is checked before": {
		"disputes_*", "provider_changes_*", "provider_comparisons_*",
	},
	"it repeats what the refund and the caller's key have, in the transaction of the refund": {"staff_refunds_*"},
	"access.Keys sets them, with the key's row locked, and nothing changes the record": {
		"api_keys_replaces*", "api_keys_seed_check", "api_keys_unapproved", "api_keys_waits", "key_acts_*",
	},
	"machinery that holds no client's value, and tests of its own": {
		"saga_*", "sagas_*", "provider_accounts_*", "outbox_*", "inbox_*", "payment_view_*", "refund_view_*", "payment_timeline_*", "payment_term_*", "feed_*", "report_*", "goose_*", "encryption_uses_*",
	},
}

// partition in the name of an index of one.
var partition = regexp.MustCompile(`_(\d+|default|undated)_`)

// Every rule of the schema refuses what it is for. A request that runs into it is
// answered by a problem that says what is wrong, or there is a reason why none can,
// and then it is a fault of ours: told to the operator, and not to the client. A new
// rule without an entry here fails, and so does an entry without a rule.
func TestEveryConstraintHasItsAnswer(t *testing.T) {
	w := newBoundaryWorld(t)
	broken, answers, reasons := violations(), mapped(), map[string]bool{}
	for _, names := range unreachable {
		for _, n := range names {
			reasons[n] = false // until it is used
		}
	}
	for _, name := range w.rules() {
		sql, ok := broken[name]
		if !ok {
			t.Errorf("nothing violates the constraint %s", name)
			continue
		}
		delete(broken, name)
		err := w.written(nil, func(tx pgx.Tx, _ map[string]string) error {
			_, err := tx.Exec(t.Context(), sql)
			return err
		})
		if by := partition.ReplaceAllString(postgres.Constraint(err), "_"); err == nil || by != name && !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: the database says %v", name, err)
			continue
		}
		if m, ok := answers[name]; ok {
			delete(answers, name)
			w.refused(name, m.request(w), problems[m.code].status, m.code)
			continue
		}
		reason := slices.IndexFunc(slices.Sorted(maps.Keys(reasons)), func(n string) bool { return covers(n, name) })
		if reason < 0 {
			t.Errorf("the constraint %s is neither mapped to a problem nor is it said why no request meets it", name)
			continue
		}
		reasons[slices.Sorted(maps.Keys(reasons))[reason]] = true
		w.orders.stock = func() ([]order.StockLevel, error) { return nil, fmt.Errorf("%s: %w", name, err) }
		a := w.do("GET", "/v1/stock", w.operator, "")
		w.refused(name, a, 500, payment.CodeInternal)
		if !strings.Contains(w.log.String(), `"error":"`+name+": ") || strings.Contains(a.body, name) || strings.Contains(a.body, "SQLSTATE") {
			t.Errorf("%s: the client is told %s", name, a.body)
		}
	}
	for name := range broken {
		t.Errorf("%s is violated and is no constraint", name)
	}
	for name := range answers {
		t.Errorf("%s is mapped and is no constraint", name)
	}
	for name, used := range reasons {
		if !used {
			t.Errorf("%s is said to be unreachable and is no constraint", name)
		}
	}
}

func covers(entry, name string) bool {
	prefix, part := strings.CutSuffix(entry, "*")
	return entry == name || part && strings.HasPrefix(name, prefix)
}

// rules of the schema by name: checks, keys, references, unique indexes and triggers.
// Not-null constraints aside: a struct's member is never NULL. A partition's are its table's.
// The trigger sagas_claim keeps a column and refuses nothing.
func (w *boundaryWorld) rules() (names []string) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), `
		SELECT array_agg(DISTINCT name::text ORDER BY name::text) FROM (
			SELECT conname FROM pg_constraint c WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conparentid = 0
				AND NOT EXISTS (SELECT FROM pg_class WHERE oid = c.conrelid AND relispartition)
			UNION ALL SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
			WHERE x.indisunique AND i.relnamespace = 'public'::regnamespace AND NOT i.relispartition
			UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0 AND tgname <> 'sagas_claim') c (name)`).Scan(&names); err != nil {
		w.t.Fatal(err)
	}
	return names
}
