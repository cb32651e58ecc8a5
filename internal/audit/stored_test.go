package audit

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

// fixture is a row of each table, and of one more: what it is beside has to pass.
const fixture = `
	INSERT INTO merchants (id, name) VALUES ('mer_01m8702cvkfn8aqyvxe63m804e', 'Shop'), ('mer_01m8702cvkfn8aqyvxe63m804f', 'Other');
	INSERT INTO api_keys (id, merchant_id, role, holder, mac, networks, approved_at) VALUES
		('key_01m8702cvkfn8aqyvxe63m804e', 'mer_01m8702cvkfn8aqyvxe63m804e', 'merchant', NULL, sha256(''), '{10.0.0.0/8}', now()),
		('key_01m8702cvkfn8aqyvxe63m804f', NULL, 'auditor', 'Ada', sha256(''), '{}', now());
	INSERT INTO orders (merchant_id, id, reference, customer_reference, currency, amount, status, sequence, created_at)
	SELECT id, replace(id, 'mer', 'ord'), 'r', 'c', 'EUR', 5, 'placed', 1, now() FROM merchants;
	INSERT INTO order_lines (merchant_id, order_id, line, sku, quantity, unit_amount)
	SELECT merchant_id, id, n, 'A', quantity, unit_amount FROM orders, (VALUES (0, 2, 2), (1, 1, 1)) AS l (n, quantity, unit_amount);
	INSERT INTO payments (merchant_id, id, order_id, status, currency, amount, payment_method, capture_method, created_at)
	SELECT merchant_id, replace(id, 'ord', 'pay'), id, 'processing', 'EUR', 5, 'pm_x', 'manual', now() FROM orders;
	INSERT INTO refunds (merchant_id, id, payment_id, amount, reason, status, created_at)
	SELECT merchant_id, replace(id, 'pay', 'ref'), id, 1, 'r', 'pending', now() FROM payments;
	INSERT INTO stock (merchant_id, sku, received, on_hand) SELECT id, 'A', 1, 1 FROM merchants;
	INSERT INTO idempotency_keys (merchant_id, key, fingerprint, resource_id, status, header, body)
	SELECT id, E'a"\\b', sha256(''), 'pay', 202, '{}'::jsonb, ''::bytea FROM merchants
	UNION ALL SELECT '', 'the service''s own', sha256(''), 'key', 201, '{}'::jsonb, ''::bytea;
	INSERT INTO webhook_endpoints (merchant_id, id, url, events)
	SELECT id, replace(id, 'mer', 'whe'), 'http://localhost:9090/hook', '{order.placed}' FROM merchants`

// corrupted rows, as they are when a constraint was dropped or came later: what is
// dropped, the one row that is changed to what, and what the audit says of it.
var corrupted = []struct{ what, drop, table, set, told string }{
	{"merchant", `ALTER DOMAIN reference DROP CONSTRAINT reference_no_control`, "merchants", `name = E'a\nb'`, "mer_01m8702cvkfn8aqyvxe63m804e: must not contain control characters"},
	{"API key", `ALTER TABLE api_keys DROP CONSTRAINT api_keys_role_check, DROP CONSTRAINT api_keys_merchant`, "api_keys", `role = 'root'`, "key_01m8702cvkfn8aqyvxe63m804e: an API key's role"},
	{"API key", `ALTER TABLE api_keys DROP CONSTRAINT api_keys_merchant`, "api_keys", `merchant_id = NULL, holder = 'Ada'`, "key_01m8702cvkfn8aqyvxe63m804e: a merchant's API key needs"},
	{"API key", `ALTER TABLE api_keys DROP CONSTRAINT api_keys_holder`, "api_keys", `holder = 'Ada '`, "key_01m8702cvkfn8aqyvxe63m804e: an API key's holder must be"},
	{"API key", `ALTER TABLE api_keys DROP CONSTRAINT api_keys_networks`, "api_keys", `networks = '{::ffff:1.2.3.4/128}'`, "key_01m8702cvkfn8aqyvxe63m804e: a network must be"},
	{"API key", `ALTER TABLE api_keys DROP CONSTRAINT api_keys_expiry`, "api_keys", `expires_at = created_at`, "key_01m8702cvkfn8aqyvxe63m804e: it expired"},
	{"order", `ALTER TABLE orders DISABLE TRIGGER orders_sum`, "orders", `amount = 6`, "ord_01m8702cvkfn8aqyvxe63m804e: validation_failed: The payment is not valid.; /amount: must equal the sum of the lines"},
	{"order", `ALTER TABLE orders DROP CONSTRAINT orders_currency_check`, "orders", `currency = 'XXX'`, "ord_01m8702cvkfn8aqyvxe63m804e: validation_failed: The payment is not valid.; /currency:"},
	{"order", `ALTER DOMAIN sku DROP CONSTRAINT sku_format; ALTER TABLE order_lines DISABLE TRIGGER order_lines_append_only`, "order_lines", `sku = ''`, "ord_01m8702cvkfn8aqyvxe63m804e: validation_failed: The payment is not valid.; /order/lines/0/sku:"},
	{"order", `ALTER TABLE orders DISABLE TRIGGER orders_business_keys`, "orders", `reference = 'r '`, "a name is no business key"},
	{"order", `ALTER TABLE orders DISABLE TRIGGER orders_business_keys`, "orders", `customer_reference = U&'c\200b'`, "/customer/reference: must not contain invisible"},
	{"order", `ALTER TABLE order_lines DISABLE TRIGGER order_lines_append_only, DROP CONSTRAINT order_lines_quantity_check`, "order_lines", `quantity = 0`, "/order/lines/0/quantity: must be from 1"},
	{"order", `ALTER TABLE payments DROP CONSTRAINT payments_capture_method_check`, "payments", `capture_method = 'later'`, "/capture_method:"},
	{"payment", `ALTER TABLE payments DROP CONSTRAINT payments_status_check`, "payments", `status = 'paid'`, "pay_01m8702cvkfn8aqyvxe63m804e: the status is none"},
	{"payment", `ALTER TABLE payments DROP CONSTRAINT payments_currency_check`, "payments", `currency = 'XXX'`, "the amount or currency is not the order's; the currency must be"},
	{"payment", ``, "payments", `amount = 6`, "the amount or currency is not the order's"},
	{"payment", `ALTER DOMAIN minor_units DROP CONSTRAINT minor_units_range`, "payments", `amount_refunded = -1`, "an amount must be from 0"},
	{"payment", `ALTER TABLE payments DROP CONSTRAINT payments_failure`, "payments", `status = 'failed'`, "it failed without a reason"},
	{"payment", `ALTER TABLE payments DROP CONSTRAINT payments_failure`, "payments", `failure_code = 'x'`, "the failure is told in part"},
	{"payment", `ALTER TABLE payments DROP CONSTRAINT payments_payment_method_check`, "payments", `payment_method = '4111111111111111'`, "must be a token of the payment provider that begins with pm_"},
	{"refund", `ALTER TABLE refunds DROP CONSTRAINT refunds_amount_check`, "refunds", `amount = 0`, "ref_01m8702cvkfn8aqyvxe63m804e: validation_failed: The refund is not valid.; /amount:"},
	{"refund", `ALTER DOMAIN reference DROP CONSTRAINT reference_no_control`, "refunds", `reason = E'a\tb'`, "/reason: must not contain"},
	{"refund", `ALTER TABLE refunds DROP CONSTRAINT refunds_status_check`, "refunds", `status = 'x'`, "the status is none"},
	{"refund", `ALTER TABLE refunds DROP CONSTRAINT refunds_failure`, "refunds", `status = 'failed'`, "the failure does not fit"},
	{"stock", `ALTER TABLE stock DROP CONSTRAINT stock_on_hand_check`, "stock", `on_hand = -1, received = -1`, "stock A of mer_01m8702cvkfn8aqyvxe63m804e: validation_failed: The stock is not valid.; /on_hand:"},
	{"stock", `ALTER DOMAIN sku DROP CONSTRAINT sku_format`, "stock", `sku = 'A '`, "the sku is no business key"},
	{"stock", `ALTER TABLE stock DROP CONSTRAINT stock_room`, "stock", `on_hand = 1000000000, reserved = 1, received = 1000000001`, "more is on hand and reserved"},
	{"idempotency key", `ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_key`, "idempotency_keys", `key = E'a\tb'`, "of mer_01m8702cvkfn8aqyvxe63m804e: the Idempotency-Key header is not one key"},
	{"webhook endpoint", `ALTER TABLE webhook_endpoints DROP CONSTRAINT webhook_endpoints_url`, "webhook_endpoints", `url = 'ftp://x'`, "whe_01m8702cvkfn8aqyvxe63m804e: validation_failed: The webhook endpoint is not valid.; /url:"},
	{"webhook endpoint", `ALTER TABLE webhook_endpoints DROP CONSTRAINT webhook_endpoints_events`, "webhook_endpoints", `events = '{nothing}'`, "/events/0:"},
}

func TestEveryStoredRowPassesItsConstructorAgain(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	errUndo := errors.New("undo")
	// found is what is wrong with the rows after the statements, by table.
	found := func(statements ...string) map[string][]string {
		t.Helper()
		wrong := map[string][]string{}
		if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			for _, sql := range append([]string{fixture + "; SET CONSTRAINTS ALL IMMEDIATE"}, statements...) {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			findings, err := revalidate(t.Context(), tx)
			if err != nil {
				return err
			}
			for _, f := range findings {
				if f.Counted != 2 {
					t.Errorf("%s: %d checked", f.Name, f.Counted)
				}
				if len(f.Violations) > 0 {
					wrong[f.Name] = f.Violations
				}
			}
			return errUndo
		}); !errors.Is(err, errUndo) {
			t.Fatalf("%s: %v", statements, err)
		}
		return wrong
	}
	if wrong := found(); len(wrong) > 0 {
		t.Errorf("of rows that are right: %v", wrong)
	}
	tried := map[string]bool{}
	for _, c := range corrupted {
		tried[c.what] = true
		wrong := found(c.drop, `UPDATE `+c.table+` SET `+c.set+` WHERE ctid = (SELECT min(ctid) FROM `+c.table+`)`)
		told := wrong["every stored "+c.what+" passes its constructor"]
		if len(told) != 1 || !strings.Contains(told[0], c.told) {
			t.Errorf("%s with %s: %q, want %q", c.what, c.set, wrong, c.told)
		}
	}
	for _, s := range tables {
		if !tried[s.what] {
			t.Errorf("no %s was corrupted", s.what)
		}
	}
}

func TestAFindingNamesSoManyViolationsAndCountsTheOthers(t *testing.T) {
	var f Finding
	for n := range maxNamed + 2 {
		f.violate("row %d", n)
	}
	var out strings.Builder
	if clean, err := Print(&out, []Finding{f}); clean || err != nil {
		t.Error(clean, err)
	}
	if told := out.String(); !strings.Contains(told, " 1002 violations\n") || !strings.HasSuffix(told, "row 999\n          and 2 more\n") {
		t.Error(told[:100], told[len(told)-50:])
	}
}
