package main

import (
	"strings"
	"testing"

	"payments/internal/payment"
)

func TestMissedWebhooksAreRedeliveredFromTheCommandLine(t *testing.T) {
	shell := newShell(t)
	pool := shell.pool
	ids := generator()
	merchant, endpoint := ids.New(payment.PrefixMerchant), ids.New(payment.PrefixEndpoint)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, merchant)
	exec(`INSERT INTO webhook_endpoints (merchant_id, id, url, events, disabled_at, disabled_reason) VALUES ($1, $2, 'https://example.com/', '{*}', now(), 'failing')`, merchant, endpoint)
	exec(`INSERT INTO webhook_missed (merchant_id, endpoint_id, event_id, event_type, payment_id, body, missed_at)
		SELECT $1, $2, 'evt_' || n, 'order.confirmed', 'pay', '{}', make_timestamptz(2026, 11, 1 + n % 3, 12, 0, 0, 'UTC') FROM generate_series(1, 3001) n`, merchant, endpoint)
	for what, c := range map[string]struct {
		args []string
		want string
	}{
		"no verb":          {nil, "name a subcommand of `payments webhooks`: redeliver"},
		"another verb":     {[]string{"list"}, "ame a subcommand of `payments webhooks`: redeliver"},
		"no endpoint":      {[]string{"redeliver"}, "name one endpoint"},
		"no time":          {[]string{"redeliver", "-from", "noon", endpoint}, "-from must be a time"},
		"an empty range":   {[]string{"redeliver", "-from", "2026-11-02", "-to", "2026-11-01", endpoint}, "-to must be after -from"},
		"another endpoint": {[]string{"redeliver", ids.New(payment.PrefixEndpoint)}, "There is no such webhook endpoint."},
		"no id":            {[]string{"redeliver", "x"}, "There is no such webhook endpoint."},
		"a disabled one":   {[]string{"redeliver", endpoint}, "Enable it first."},
	} {
		if out, err := shell.run("", append([]string{"webhooks"}, c.args...)...); err == nil || !strings.Contains(err.Error(), c.want) || out != "" {
			t.Errorf("%s: %q, %v; want %q", what, out, err, c.want)
		}
	}
	exec(`UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL`)
	for _, c := range [][2]string{
		{"-from=2026-11-02 -to=2026-11-03", "1001 missed events and 0 failed deliveries are due now.\n"},
		{"-from=2026-11-01T00:00:00Z", "2000 missed events and 0 failed deliveries are due now.\n"},
		{"", "0 missed events and 0 failed deliveries are due now.\n"},
	} {
		if out, err := shell.run("", append(append([]string{"webhooks", "redeliver"}, strings.Fields(c[0])...), endpoint)...); err != nil || out != c[1] {
			t.Errorf("%s: %q, %v; want %q", c[0], out, err, c[1])
		}
	}
}
