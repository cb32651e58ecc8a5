package main

import (
	"context"
	"flag"
	"fmt"
	"regexp"
	"strings"
)

// firstPayment needs PAYMENTS_URL and PAYMENTS_API_KEY in the shell's environment.
const firstPayment = `curl -i $PAYMENTS_URL/v1/payments -H "Authorization: Bearer $PAYMENTS_API_KEY" \
    -H "Idempotency-Key: $(date +%s%N)" -H 'Content-Type: application/json' -H 'Prefer: wait=10' \
    -d '{"amount": 4998, "currency": "EUR", "payment_method": "pm_card_visa",
         "customer": {"reference": "cust-42", "email": "ada@example.com"},
         "order": {"reference": "A-'$(date +%s)'", "lines": [{"sku": "TSHIRT-M", "quantity": 2, "unit_amount": 2499}]}}'`

// lineEnd and what indents the next line; the backslash continues a shell's line.
var lineEnd = regexp.MustCompile(`( \\)?\n *`)

// welcome says what to do with docker compose's stack, once it is ready. It prints
// commands that read a secret, and no secret.
func welcome(_ context.Context, e environment) error {
	flags := flag.NewFlagSet("welcome", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	prometheus := flags.String("prometheus", "", "where Prometheus is served")
	grafana := flags.String("grafana", "", "where Grafana is served")
	if err := flags.Parse(e.args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var urls []any
	for _, name := range []string{"PAYMENTS_URL", "PAYMENTS_ADMIN_URL", "PAYMENTS_SIMULATOR_URL"} {
		url, err := e.required(name)
		if err != nil {
			return err
		}
		urls = append(urls, url)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nReady. The API is at %[1]s (how to use it: %[1]s/docs), metrics and health at %[2]s, the bank's simulator at %[3]s.\n", urls...)
	if *prometheus != "" {
		fmt.Fprintf(&b, "Prometheus is at %s.\n", *prometheus)
	}
	if *grafana != "" {
		fmt.Fprintf(&b, "Grafana is at %s, for the user admin with the password that this prints: %s\n", *grafana, e.showCommand("GRAFANA_ADMIN_PASSWORD"))
	}
	// One line a command: the lines of a log have a prefix each.
	fmt.Fprintf(&b, `A payment, typed in the directory of docker-compose.yml:

  export PAYMENTS_URL=%s
  export PAYMENTS_API_KEY="$(%s)"
  %s

The operator's key: %s
Every invariant, checked: docker compose exec -T service /payments audit
`, urls[0], e.showCommand("PAYMENTS_API_KEY"), lineEnd.ReplaceAllString(firstPayment, " "), e.showCommand("PAYMENTS_OPERATOR_KEY"))
	_, err := fmt.Fprint(e.stdout, b.String())
	return err
}
