package main

import (
	"bytes"
	"strings"
	"testing"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
	"payments/internal/payment"
	"payments/internal/postgres"
)

func TestReplayOnTheCommandLine(t *testing.T) {
	db := devtest.Database(t)
	brokers, prefix := devtest.Brokers(t), devtest.Topic(t)+"."
	client, err := broker.NewClient(brokers, broker.Config{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.EnsureTopic(t.Context(), payment.Topic, 2); err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{
		"PAYMENTS_DATABASE_URL": db.URL, "PAYMENTS_MIGRATE_DATABASE_URL": db.OwnerURL,
		"PAYMENTS_KAFKA_BROKERS": strings.Join(brokers, ","), "PAYMENTS_KAFKA_PREFIX": prefix,
	}
	says := func(args ...string) (string, error) {
		var out, problems bytes.Buffer
		err := run(t.Context(), append([]string{"replay"}, args...), func(name string) (string, bool) {
			v, ok := environment[name]
			return v, ok
		}, &out, &problems)
		return out.String() + problems.String(), err
	}
	for _, wrong := range [][]string{nil, {"orders"}, {"payment_view", "more"}, {"payment_view", "-force"}} {
		if out, err := says(wrong...); err == nil {
			t.Errorf("%q: %s", wrong, out)
		}
	}
	if out, err := says("payment_view"); err != nil || !strings.Contains(out, "The new tables are live.") {
		t.Fatalf("%s: %v", out, err)
	}
	// A row that no order of the write model has.
	pool, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), `
		INSERT INTO payment_view (merchant_id, payment_id, order_id, sequence, status, currency, amount, payment_method, customer_reference,
			order_reference, lines, created_at, updated_at)
		VALUES ('mer_01jqh0000000000000000000zz', 'pay_01jqh0000000000000000000zz', 'ord_01jqh0000000000000000000zz', 1, 'processing', 'EUR', 1,
			'pm_card_visa', 'c', 'o', '[]', now(), now())`); err != nil {
		t.Fatal(err)
	}
	out, err := says("payment_view")
	if err == nil || !strings.Contains(out, "pay_01jqh0000000000000000000zz of mer_01jqh0000000000000000000zz: is unknown") ||
		!strings.Contains(out, "The live tables stay.") || !strings.Contains(err.Error(), "-accept-differences") {
		t.Errorf("%s: %v", out, err)
	}
	if out, err = says("payment_view", "-accept-differences"); err != nil || !strings.Contains(out, "1 differ") {
		t.Errorf("%s: %v", out, err)
	}
	delete(environment, "PAYMENTS_MIGRATE_DATABASE_URL") // the service's role cannot make tables
	if out, err = says("payment_view"); err == nil {
		t.Errorf("as the service's role: %s", out)
	}
	delete(environment, "PAYMENTS_KAFKA_BROKERS")
	if _, err = says("payment_view"); err == nil || !strings.Contains(err.Error(), "PAYMENTS_KAFKA_BROKERS") {
		t.Errorf("%v", err)
	}
}
