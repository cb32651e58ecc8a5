package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v3"
)

// firstPayment needs PAYMENTS_URL and PAYMENTS_API_KEY in the shell's environment.
const firstPayment = `curl -i $PAYMENTS_URL/v1/payments -H "Authorization: Bearer $PAYMENTS_API_KEY" \
    -H "Idempotency-Key: $(date +%s%N)" -H 'Content-Type: application/json' -H 'Prefer: wait=10' \
    -d '{"amount": 4998, "currency": "EUR", "payment_method": "pm_card_visa",
         "customer": {"reference": "cust-42", "email": "ada@example.com"},
         "order": {"reference": "A-'$(date +%s)'", "lines": [{"sku": "TSHIRT-M", "quantity": 2, "unit_amount": 2499}]}}'`

// lineEnd and what indents the next line; the backslash continues a shell's line.
var lineEnd = regexp.MustCompile(`( \\)?\n *`)

func (e environment) welcomeCommand() *cli.Command {
	return &cli.Command{
		Name: "welcome", Usage: "say what to do with docker compose's stack",
		Description: about("Prints commands that read a secret, and no secret.", "payments welcome -grafana http://127.0.0.1:3000"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "prometheus", Usage: "the `URL` where Prometheus is served"},
			&cli.StringFlag{Name: "grafana", Usage: "the `URL` where Grafana is served"},
		},
		Action: alone(func(_ context.Context, c *cli.Command) error {
			return e.welcome(c.String("prometheus"), c.String("grafana"))
		}),
	}
}

// welcome says what to do with docker compose's stack, once it is ready. It prints
// commands that read a secret, and no secret.
func (e environment) welcome(prometheus, grafana string) error {
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
	if prometheus != "" {
		fmt.Fprintf(&b, "Prometheus is at %s.\n", prometheus)
	}
	if grafana != "" {
		fmt.Fprintf(&b, "Grafana is at %s, for the user admin with the password that this prints: %s\n", grafana, e.showCommand("GRAFANA_ADMIN_PASSWORD"))
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
