package api

import (
	"fmt"
	"math"
	"slices"
	"time"

	"payments/internal/access"
	"payments/internal/idempotency"
	"payments/internal/inbox"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/saga"
	"payments/internal/webhook"
)

// boundary is a value at the edge of a rule, with the one verdict that every layer
// has to give.
type boundary struct {
	value any
	valid bool
	// refusedBy are the constraints, apart by spaces, one of which refuses it in the database.
	refusedBy string
	unsaid    layer
}

// layer that takes a value which the others refuse: it cannot say the rule.
type layer int

const (
	inDatabase layer = 1 << iota
	inDocument
)

// member of a request.
type member struct {
	of      *operation
	pointer string // into the body, or the name of a header
	// kept are the columns (table.column) that the value comes to lie in.
	kept []string
	// column makes of the value what the column holds; nil: the value itself.
	column func(v any) any
	// beside are columns that hold something else than usual.
	beside map[string]any
	// with makes a request that is valid but for the value; nil: operation's own with the value at the pointer.
	with   func(body map[string]any, v any)
	domain func(w *boundaryWorld, v any) error
	values [][]boundary
}

// members of the requests that write, with every value at the edge of a rule.
func members() []member {
	pay, ref, stock, endpoint, apiKey := payOperation(), refundOperation(), stockOperation(), endpointOperation(), keyOperation()
	act, propose, discard, replay, explain := actOperation(), proposeOperation(), discardOperation(), replayOperation(), explainOperation()
	draft := func(set func(d *payment.Draft, v any)) func(*boundaryWorld, any) error {
		return func(_ *boundaryWorld, v any) error {
			d := payment.Draft{
				Amount: 1, Currency: "EUR", PaymentMethod: "pm_x", CustomerReference: "c", OrderReference: "o",
				Lines: []payment.DraftLine{{SKU: "A", Quantity: 1, UnitAmount: 1}},
			}
			set(&d, v)
			_, err := payment.NewOrder(d)
			return err
		}
	}
	line := func(body map[string]any) map[string]any { return at(body, "/order/lines/0").(map[string]any) }
	seconds := func(most int64) [][]boundary { // a time is kept that follows from them
		return [][]boundary{valid(int64(0), int64(1), most), unsaid(inDatabase, "a time is kept that follows from it", "", int64(-1), most+1, int64(math.MaxInt64), int64(math.MinInt64))}
	}
	return []member{
		{
			of: pay, pointer: "Idempotency-Key", kept: []string{"idempotency_keys.key"},
			domain: func(_ *boundaryWorld, v any) error { _, err := idempotency.ParseKey([]string{v.(string)}); return err },
			values: [][]boundary{
				valid("x", "~", "!", "'", long(255)),
				refused("idempotency_keys_key", "", long(256), "ä", "a\tb"),
				unsaid(inDatabase, "a key of the service's own has a space", "", "a b"),
			},
		},
		{
			of: pay, pointer: "/amount", kept: []string{"orders.amount", "payments.amount"},
			with: func(body map[string]any, v any) { line(body)["unit_amount"], body["amount"] = v, v },
			domain: draft(func(d *payment.Draft, v any) {
				d.Amount = v.(int64)
				d.Lines[0].UnitAmount = d.Amount
			}),
			values: [][]boundary{
				valid(int64(1), payment.MaxAmount), refused("orders_amount_check payments_amount_check", int64(0)),
				refused("minor_units_range", int64(-1), payment.MaxAmount+1, int64(math.MaxInt64), int64(math.MinInt64)),
			},
		},
		{
			of: pay, pointer: "/currency", kept: []string{"orders.currency", "payments.currency"},
			domain: draft(func(d *payment.Draft, v any) { d.Currency = v.(string) }),
			values: [][]boundary{
				valid("EUR", "JPY", "KWD", "XAF", "ZWG"),
				refused("orders_currency_check payments_currency_check", "", "eur", "XXX", "XTS", "XAU", "BGN", "EU", "EURO", "EUR\n", "ÉUR"),
			},
		},
		{
			of: pay, pointer: "/payment_method", kept: []string{"payments.payment_method"},
			domain: draft(func(d *payment.Draft, v any) { d.PaymentMethod = v.(string) }),
			values: [][]boundary{
				valid("pm_x", "pm_0", "pm_a._-", "pm_"+long(61)),
				refused("payments_payment_method_check", "", "pm_", "x", "pm_.a", "pm_"+long(62), "4111111111111111", "pm_a\n", "pm_ä", "pm_a b", "PM_a"),
			},
		},
		{
			of: pay, pointer: "/capture_method", kept: []string{"payments.capture_method"},
			domain: func(w *boundaryWorld, v any) error {
				return draft(func(d *payment.Draft, v any) { d.CaptureMethod = orNone(v) })(w, v)
			},
			values: [][]boundary{valid("automatic", "manual"), refused("payments_capture_method_check", "", "later", "Manual", "manual ")},
		},
		{
			of: pay, pointer: "/customer/reference", kept: []string{"orders.customer_reference"},
			domain: draft(func(d *payment.Draft, v any) { d.CustomerReference = v.(string) }),
			values: references(), column: keyColumn,
		},
		{
			of: pay, pointer: "/customer/email", kept: []string{"orders.customer_email_ciphertext"},
			column: func(v any) any { return append(make([]byte, 33), v.(string)...) },
			domain: draft(func(d *payment.Draft, v any) { d.CustomerEmail = orNone(v) }),
			values: emails(),
		},
		{
			of: pay, pointer: "/order/reference", kept: []string{"orders.reference"},
			domain: draft(func(d *payment.Draft, v any) { d.OrderReference = v.(string) }),
			values: references(), column: keyColumn,
		},
		{
			// How many there are; the index of the last one is kept.
			of: pay, pointer: "/order/lines", kept: []string{"order_lines.line"},
			column: func(v any) any { return v.(int) - 1 },
			with: func(body map[string]any, v any) {
				lines := []any{}
				for range v.(int) {
					lines = append(lines, line(body))
				}
				at(body, "/order").(map[string]any)["lines"], body["amount"] = lines, max(v.(int), 1)
			},
			domain: draft(func(d *payment.Draft, v any) {
				d.Lines, d.Amount = slices.Repeat(d.Lines, v.(int)), max(int64(v.(int)), 1)
			}),
			values: [][]boundary{valid(1, payment.MaxLines), refused("order_lines_line_check", 0, payment.MaxLines+1)},
		},
		{
			of: pay, pointer: "/order/lines/0/sku", kept: []string{"order_lines.sku"},
			domain: draft(func(d *payment.Draft, v any) { d.Lines[0].SKU = v.(string) }),
			values: skus(), column: keyColumn,
		},
		{
			of: pay, pointer: "/order/lines/0/quantity", kept: []string{"order_lines.quantity"},
			with: func(body map[string]any, v any) { line(body)["quantity"], body["amount"] = v, max(v.(int64), 1) },
			domain: draft(func(d *payment.Draft, v any) {
				d.Lines[0].Quantity, d.Amount = v.(int64), max(v.(int64), 1)
			}),
			values: [][]boundary{
				valid(int64(1), int64(payment.MaxQuantity)),
				refused("order_lines_quantity_check", int64(0), int64(-1), int64(payment.MaxQuantity+1)),
			},
		},
		{
			// A line of nothing beside one that is paid for.
			of: pay, pointer: "/order/lines/1/unit_amount", kept: []string{"order_lines.unit_amount"},
			with: func(body map[string]any, v any) {
				second := map[string]any{"sku": "B", "quantity": 1, "unit_amount": v}
				at(body, "/order").(map[string]any)["lines"], body["amount"] = []any{line(body), second}, max(v.(int64)+1, 1)
			},
			domain: draft(func(d *payment.Draft, v any) {
				d.Lines = append(d.Lines, payment.DraftLine{SKU: "B", Quantity: 1, UnitAmount: v.(int64)})
				d.Amount = max(v.(int64)+1, 1)
			}),
			values: [][]boundary{valid(int64(0), payment.MaxAmount-1), refused("minor_units_range", int64(-1), payment.MaxAmount+1)},
		},
		{
			of: ref, pointer: "/amount", kept: []string{"refunds.amount"},
			domain: func(_ *boundaryWorld, v any) error { n := v.(int64); _, err := payment.NewRefund(&n, ""); return err },
			values: [][]boundary{
				valid(int64(1), payment.MaxAmount), refused("refunds_amount_check", int64(0)), refused("minor_units_range", int64(-1), payment.MaxAmount+1),
			},
		},
		{
			of: ref, pointer: "/reason", kept: []string{"refunds.reason"},
			domain: func(_ *boundaryWorld, v any) error { _, err := payment.NewRefund(nil, orNone(v)); return err },
			values: text(payment.MaxReference, "reference_length", "reference_no_control"),
		},
		{
			of: stock, pointer: "/merchant", kept: []string{"merchants.id"},
			domain: func(_ *boundaryWorld, v any) error { _, err := payment.NewStock("", v.(string), "A", 1); return err },
			values: [][]boundary{refused("merchants_id_check", "", "mer_", "mer_x", "pay_01m86y4ap9ecqaxaqqqxxb77hg", "mer_81m86y4ap9ecqaxaqqqxxb77hg", "mer_01m86y4ap9ecqaxaqqqxxb77hg\n",
				"mer_01m86y4ap9ecqaxaqqqxxb77hgg", "MER_01m86y4ap9ecqaxaqqqxxb77hg", "mer_01m86y4ap9ecqaxaqqqxxb77hu", "mer_01M86Y4AP9ECQAXAQQQXXB77HG")},
		},
		{
			of: stock, pointer: "/sku", kept: []string{"stock.sku"},
			domain: func(w *boundaryWorld, v any) error {
				_, err := payment.NewStock("", w.merchantID, v.(string), 1)
				return err
			},
			values: skus(), column: keyColumn,
		},
		{
			of: stock, pointer: "/on_hand", kept: []string{"stock.on_hand"},
			domain: func(w *boundaryWorld, v any) error {
				_, err := payment.NewStock("", w.merchantID, "A", v.(int64))
				return err
			},
			values: [][]boundary{valid(int64(0), payment.MaxOnHand), refused("stock_on_hand_check", int64(-1), payment.MaxOnHand+1, int64(math.MaxInt64))},
		},
		{
			of: stock, pointer: "/data", // how many there are
			with: func(body map[string]any, v any) {
				items := make([]any, v.(int))
				for i := range items {
					items[i] = map[string]any{"merchant": body["merchant"], "sku": fmt.Sprintf("%064d", i), "on_hand": payment.MaxOnHand}
				}
				clear(body)
				body["data"] = items
			},
			values: [][]boundary{valid(1, maxStockItems), refused("", 0, maxStockItems+1)},
		},
		{
			of: endpoint, pointer: "/url", kept: []string{"webhook_endpoints.url"},
			domain: func(_ *boundaryWorld, v any) error {
				_, err := webhook.NewDraft(webhook.Guard{}, v.(string), []string{webhook.AllEvents})
				return err
			},
			values: urls(),
		},
		{
			of: endpoint, pointer: "/events", kept: []string{"webhook_endpoints.events"},
			domain: func(_ *boundaryWorld, v any) error {
				_, err := webhook.NewDraft(webhook.Guard{}, hookURL, words(v))
				return err
			},
			values: [][]boundary{
				valid([]any{"*"}, []any{"order.placed"}, eventTypes()),
				refused("webhook_endpoints_events", []any{}, []any{""}, []any{"*", "order.placed"}, []any{"*", "*"}, []any{"order.placed "}, []any{"order.nothing"},
					[]any{"order.placed", "order.placed"}, append(eventTypes(), "order.placed")),
			},
		},
		{
			of: apiKey, pointer: "/role", kept: []string{"api_keys.role"},
			domain: func(w *boundaryWorld, v any) error {
				return w.newKey(access.KeySpec{Mode: access.ModeTest, Role: access.Role(v.(string)), Holder: "ada"})
			},
			values: [][]boundary{valid("support", "operator", "auditor"), refused("api_keys_role_check", "", "root", "Operator", "auditor ")},
		},
		{
			of: apiKey, pointer: "/merchant", kept: []string{"api_keys.merchant_id"},
			domain: func(w *boundaryWorld, v any) error {
				return w.newKey(access.KeySpec{Mode: access.ModeTest, Role: access.RoleAuditor, MerchantID: v.(string), Holder: "ada"})
			},
			values: [][]boundary{refused("api_keys_merchant", "mer_01m86y4ap9ecqaxaqqqxxb77hg", "x")}, // of a role that reads all
		},
		{
			of: apiKey, pointer: "/merchant", kept: []string{"api_keys.merchant_id"}, beside: map[string]any{"api_keys.role": "merchant"},
			with: func(body map[string]any, v any) { body["role"], body["merchant"] = "merchant", v },
			domain: func(w *boundaryWorld, v any) error {
				return w.newKey(access.KeySpec{Mode: access.ModeTest, Role: access.RoleMerchant, MerchantID: v.(string)})
			},
			values: [][]boundary{refused("api_keys_merchant_id_fkey", "", "mer_x", "pay_01m86y4ap9ecqaxaqqqxxb77hg", "mer_01m86y4ap9ecqaxaqqqxxb77hg\n")},
		},
		{
			of: apiKey, pointer: "/holder", kept: []string{"api_keys.holder"},
			domain: func(w *boundaryWorld, v any) error {
				return w.newKey(access.KeySpec{Mode: access.ModeTest, Role: access.RoleAuditor, Holder: v.(string)})
			},
			values: holders(),
		},
		{
			of: merchantKeyOperation(), pointer: "/holder", kept: []string{"api_keys.holder"}, beside: map[string]any{"api_keys.role": "merchant"},
			domain: func(w *boundaryWorld, v any) error {
				return w.newKey(access.KeySpec{Mode: access.ModeTest, Role: access.RoleMerchant, MerchantID: w.merchantID, Holder: orNone(v)})
			},
			values: holders(),
		},
		{
			of: apiKey, pointer: "/mode",
			domain: func(w *boundaryWorld, v any) error {
				return w.newKey(access.KeySpec{Mode: access.Mode(v.(string)), Role: access.RoleAuditor, Holder: "ada"})
			},
			values: [][]boundary{valid("test", "live"), refused("", "", "Test", "prod")},
		},
		{
			of: apiKey, pointer: "/networks", kept: []string{"api_keys.networks"},
			domain: func(_ *boundaryWorld, v any) error { return parseNetworks(words(v)) },
			values: [][]boundary{
				valid([]any{}, []any{"192.0.2.1"}, []any{"192.0.2.0/24", "2001:db8::/32"}, []any{"0.0.0.0/0"}, []any{"::/0"}, slices.Repeat([]any{"192.0.2.0/24"}, access.MaxNetworks)),
				refused("api_keys_networks", slices.Repeat([]any{"192.0.2.0/24"}, access.MaxNetworks+1)),
				unsaid(inDocument, "whether bits are behind the length, or the address is a mapped one, is arithmetic", "api_keys_networks", []any{"::ffff:192.0.2.0/120"}),
				unsaid(inDocument, "as above; and cidr refuses it by its type", "", []any{"192.0.2.1/24"}, []any{"192.0.2.0/33"}, []any{"2001:db8::1/64"}, []any{"300.0.0.0/8"}, []any{"::1::"}),
				refused("", []any{""}, []any{"example.com"}, []any{"192.0.2.0/"}, []any{"fe80::1%eth0"}, []any{"192.0.2.0/24 "}),
			},
		},
		{
			of: apiKey, pointer: "/expires_at", kept: []string{"api_keys.expires_at"},
			domain: func(w *boundaryWorld, v any) error {
				at, err := payment.ParseTime(v.(string))
				if err != nil {
					return err
				}
				return w.newKey(access.KeySpec{Mode: access.ModeTest, Role: access.RoleAuditor, Holder: "ada", ExpiresAt: &at})
			},
			values: [][]boundary{
				valid("2999-12-31T23:59:59Z", "2999-12-31T23:59:59.999999999+14:00", "9999-12-31T23:59:59Z"),
				unsaid(inDocument, "what is to come changes by the second", "api_keys_expiry", "2020-01-01T00:00:00Z", time.Now().UTC().Add(-time.Second).Format(time.RFC3339Nano)),
				refused("", "", "soon", "2999-13-01T00:00:00Z", "2999-02-29T00:00:00Z", "2999-12-31T23:59:59,5Z"),
				unsaid(inDatabase, "a timestamptz is read in many forms", "", "tomorrow", "2999-12-31", "2999-12-31 23:59:59Z", "2999-12-31t23:59:59z",
					"2999-12-31T23:59:59", "2999-12-31T1:00:00Z", "2999-12-31T23:59:60Z"),
			},
		},
		{
			of: apiKey, pointer: "/api_version", kept: []string{"api_keys.api_version"},
			domain: func(w *boundaryWorld, v any) error {
				_, _, err := access.NewKey(w.ids, w.pepper, access.KeySpec{Mode: access.ModeTest, Role: access.RoleAuditor, Holder: "ada", APIVersion: v.(string)})
				return err
			},
			values: apiVersions(),
		},
		{of: pinOperation(), pointer: "/api_version", kept: []string{"api_keys.api_version"}, values: apiVersions()},
		{
			of: act, pointer: "/reason", kept: []string{"saga_actions.reason"},
			domain: func(w *boundaryWorld, v any) error { return w.act("pause", v.(string), order.Verdict{}) },
			values: reasons("saga_actions_reason"),
		},
		{
			of: propose, pointer: "/verdict/outcome", kept: []string{"saga_actions.verdict"},
			column: func(v any) any { return map[string]any{"verdict": v, "reference": "op_said", "code": "c"} },
			domain: func(w *boundaryWorld, v any) error {
				return w.act("propose", "seen", order.Verdict{Verdict: saga.Verdict(v.(string)), Reference: "op_said"})
			},
			values: [][]boundary{valid("succeeded"), refused("saga_actions_verdict", "", "unknown", "not_found", "Succeeded")},
		},
		{
			of: propose, pointer: "/verdict/reference", kept: []string{"saga_actions.verdict"},
			column: func(v any) any { return map[string]any{"verdict": "succeeded", "reference": v} },
			domain: func(w *boundaryWorld, v any) error {
				return w.act("propose", "seen", order.Verdict{Verdict: order.VerdictSucceeded, Reference: v.(string)})
			},
			values: text(payment.MaxReference, "saga_actions_verdict", "saga_actions_verdict"),
		},
		{
			of: propose, pointer: "/verdict/code", kept: []string{"saga_actions.verdict"},
			column: func(v any) any { return map[string]any{"verdict": "rejected", "code": v} },
			with:   func(body map[string]any, v any) { body["verdict"] = map[string]any{"outcome": "rejected", "code": v} },
			domain: func(w *boundaryWorld, v any) error {
				return w.act("propose", "seen", order.Verdict{Verdict: order.VerdictRejected, Code: v.(string)})
			},
			values: text(payment.MaxReference, "saga_actions_verdict", "saga_actions_verdict"),
		},
		{
			of: propose, pointer: "/verdict/detail", kept: []string{"saga_actions.verdict"},
			column: func(v any) any { return map[string]any{"verdict": "succeeded", "reference": "op_said", "detail": v} },
			domain: func(w *boundaryWorld, v any) error {
				return w.act("propose", "seen", order.Verdict{Verdict: order.VerdictSucceeded, Reference: "op_said", Detail: orNone(v)})
			},
			values: reasons("saga_actions_verdict"),
		},
		{
			of: discard, pointer: "/reason", kept: []string{"inbox_discarded.reason"},
			domain: func(w *boundaryWorld, v any) error {
				id, _ := w.blockOne()
				_, err := w.api.DeadLetters.Discard(w.t.Context(), id, inbox.By{Operator: "key", Holder: "ada", Reason: v.(string)}, nil)
				return err
			},
			values: reasons("inbox_discarded_reason"),
		},
		{of: replay, pointer: "/consumer", values: plain()},
		{of: replay, pointer: "/fingerprint", values: plain()},
		{of: explain, pointer: "/role", values: [][]boundary{valid("merchant", "merchant_reader", "support", "operator", "auditor"), refused("", "", "root")}},
		{of: explain, pointer: "/action", values: actions()},
		{
			of: explain, pointer: "/amount",
			with:   func(body map[string]any, v any) { body["amount"], body["currency"] = v, "EUR" },
			values: [][]boundary{valid(int64(0), payment.MaxAmount), refused("", int64(-1), payment.MaxAmount+1)},
		},
		{
			of: explain, pointer: "/currency",
			with:   func(body map[string]any, v any) { body["amount"], body["currency"] = 1, v },
			values: [][]boundary{valid("EUR"), refused("", "", "eur", "XXX")},
		},
		{
			of: explain, pointer: "/amount", // which belongs to one action
			with:   func(body map[string]any, v any) { body["action"], body["amount"], body["currency"] = v, 1, "EUR" },
			values: [][]boundary{valid("refunds:create"), refused("", "payments:read", "refunds:list")},
		},
		{of: rotateSecretOperation(), pointer: "/overlap_seconds", values: seconds(int64(maxOverlap / time.Second))},
		{of: rotateKeyOperation(), pointer: "/mode", values: [][]boundary{valid("test", "live"), refused("", "", "Test", "prod")}},
		{of: redeliveryOperation(), pointer: "/from", values: moments()},
		{of: redeliveryOperation(), pointer: "/to", values: moments()},
		{of: rotateKeyOperation(), pointer: "/overlap_seconds", values: seconds(int64(access.MaxOverlap / time.Second))},
	}
}
