package order_test

import (
	"strings"
	"testing"

	"payments/internal/payment"
)

// mapped constraints answer a request with a problem of this code; a test named
// beside each sees it.
var mapped = map[string]payment.Code{
	"orders_one_live_or_won":    payment.CodeOrderInProgress,  // or order_already_paid: ON CONFLICT in Service.insert
	"payments_refunds_bounded":  payment.CodeRefundExceeds,    // Service.insertRefund
	"idempotency_keys_pkey":     payment.CodeKeyInUse,         // idempotency.Store
	"stock_merchant_id_fkey":    payment.CodeNotFound,         // SetStock
	"stock_room":                payment.CodeInvalid,          // SetStock
	"api_keys_merchant_id_fkey": payment.CodeNotFound,         // access.InsertKey
	"api_keys_expiry":           payment.CodeInvalid,          // access.InsertKey
	"inbox_discarded_reason":    payment.CodeInvalid,          // inbox.Parked.Discard
	"payments_transition":       payment.CodeActionNotAllowed, // a trigger; the saga turns back before it
}

// unreachable constraints no request can violate: each is a fault of ours, and a
// 500 that is logged. A name may end in * for a part of the machinery.
var unreachable = map[string][]string{
	"the domain's constructors refuse the value before, by TestBoundariesAgree of internal/api": {
		"minor_units_range", "reference_length", "reference_no_control", "sku_format", "order_lines_line_check", "order_lines_quantity_check",
		"orders_amount_check", "orders_currency_check", "payments_amount_check", "payments_capture_method_check", "payments_currency_check",
		"payments_payment_method_check", "refunds_amount_check", "stock_on_hand_check", "idempotency_keys_key", "orders_customer_email", "merchants_id_check",
		"api_keys_networks", "api_keys_role_check", "api_keys_merchant", "webhook_endpoints_url", "webhook_endpoints_events",
	},
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
		"refunds_failure", "refunds_status_check", "refunds_transition", "stock_conserved", "stock_reserved_check", "stock_sold_check",
		"stock_reservations_quantity_check", "stock_reservations_state_check",
	},
	"states that webhook.Store and the dispatcher set, fenced and locked": {
		"webhook_endpoints_id_check", "webhook_endpoints_pkey", "webhook_endpoints_merchant_id_fkey", "webhook_endpoints_exhausted_check",
		"webhook_endpoints_disabled*", "webhook_secrets_*", "webhook_deliveries_*", "webhook_attempts_*",
	},
	"machinery that holds no client's value, and tests of its own": {
		"saga_*", "sagas_*", "outbox_*", "inbox_*", "payment_view_*", "refund_view_*", "payment_timeline_*", "payment_term_*", "report_*", "goose_*",
	},
}

// Every constraint is mapped to a problem's code, or there is a reason why no
// request meets it. A name that is no constraint any more is refused as well.
func TestEveryConstraintHasItsAnswer(t *testing.T) {
	w := newWorld(t)
	answered := func(name string) (by string) {
		if _, ok := mapped[name]; ok {
			return name
		}
		for _, names := range unreachable {
			for _, n := range names {
				if prefix, part := strings.CutSuffix(n, "*"); n == name || part && strings.HasPrefix(name, prefix) {
					return n
				}
			}
		}
		return ""
	}
	seen := map[string]bool{}
	// Not-null constraints aside: a struct's member is never NULL. A partition's are its table's.
	for _, name := range one[[]string](w, `
		SELECT array_agg(DISTINCT name::text) FROM (
			SELECT conname FROM pg_constraint c WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conparentid = 0
				AND NOT EXISTS (SELECT FROM pg_class WHERE oid = c.conrelid AND relispartition)
			UNION ALL SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
			WHERE x.indisunique AND i.relnamespace = 'public'::regnamespace AND NOT i.relispartition
			UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE '%transition') c (name)`) {
		by := answered(name)
		if by == "" {
			t.Errorf("the constraint %s is neither mapped to a problem nor is it said why no request meets it", name)
		}
		seen[by] = true
	}
	for name := range mapped {
		if !seen[name] {
			t.Errorf("%s is mapped and is no constraint", name)
		}
	}
	for _, names := range unreachable {
		for _, n := range names {
			if !seen[n] {
				t.Errorf("%s is said to be unreachable and is no constraint", n)
			}
		}
	}
}
