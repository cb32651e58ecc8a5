package report

import (
	"fmt"
	"slices"
	"strings"
)

// Kind of a report, as its route names it.
type Kind string

// The reports.
const (
	Revenue       Kind = "revenue"
	ApprovalRate  Kind = "approval_rate"
	Failures      Kind = "failures"
	TopProducts   Kind = "top_products"
	Refunds       Kind = "refunds"
	SagaDurations Kind = "saga_durations"
)

// kind says what a report can be asked for. Every view has the column day.
type kind struct {
	view string
	// always are the dimensions of every answer: amounts of different currencies do not
	// add up, and two merchants' articles of one name are two articles.
	always []string
	// groups are the dimensions that group_by can add, beside a period.
	groups []string
	// otherwise is group_by when it is not given.
	otherwise []string
	// together: rows of the merchant '*' are of all together.
	together bool
	// everybodys has no merchant and no currency to narrow by.
	everybodys bool
	// sql is the query without its order; p has its dimensions and conditions.
	sql func(p plan) string
}

// plan are the parts of a query that a request chooses.
type plan struct {
	columns string // the dimensions, named
	numbers string // of those columns, for GROUP BY
	names   string // for the queries around
	where   string
}

var kinds = map[Kind]kind{
	Revenue: {
		together: true, view: "report_revenue", always: []string{"currency"}, groups: []string{"merchant"}, otherwise: []string{"day"},
		sql: func(p plan) string {
			return fmt.Sprintf(`
				SELECT %s, sum(payments)::bigint AS payments, sum(gross)::bigint AS gross, sum(refunded)::bigint AS refunded,
					(sum(gross) - sum(refunded))::bigint AS net
				FROM report_revenue WHERE %s GROUP BY %s`, p.columns, p.where, p.numbers)
		},
	},
	ApprovalRate: {
		together: true, view: "report_approval_rate", groups: []string{"payment_method", "currency", "merchant"}, otherwise: []string{"payment_method"},
		sql: func(p plan) string {
			rates := fmt.Sprintf(`
				SELECT %s, max(example) AS example, sum(payments)::bigint AS payments, sum(approved)::bigint AS approved, sum(declined)::bigint AS declined
				FROM report_approval_rate WHERE %s GROUP BY %s`, p.columns, p.where, p.numbers)
			if !strings.Contains(p.names, "payment_method") {
				return rates
			}
			// payments_id finds each group's example. Postgres breaks base64 into lines.
			return fmt.Sprintf(`
				SELECT r.*, replace(encode(p.payment_method_ciphertext, 'base64'), E'\n', '') AS payment_method_ciphertext
				FROM (%s) r LEFT JOIN (SELECT id AS example, payment_method_ciphertext FROM payments) p USING (example)`, rates)
		},
	},
	Failures: {
		together: true, view: "report_failures", groups: []string{"code", "step", "currency", "merchant"}, otherwise: []string{"code"},
		sql: func(p plan) string {
			return fmt.Sprintf(`
				SELECT %s, sum(payments)::bigint AS payments FROM report_failures WHERE %s GROUP BY %s`, p.columns, p.where, p.numbers)
		},
	},
	TopProducts: {
		view: "report_top_products", always: []string{"currency", "merchant", "sku"},
		// The rank is among the articles of one currency, and of one period if there are several.
		sql: func(p plan) string {
			among := "currency"
			if strings.Contains(p.names, "period") {
				among = "period, currency"
			}
			return fmt.Sprintf(`
				SELECT * FROM (
					SELECT *, row_number() OVER (PARTITION BY %s ORDER BY gross DESC, quantity DESC, merchant, sku) AS rank FROM (
						SELECT %s, sum(quantity)::bigint AS quantity, sum(gross)::bigint AS gross
						FROM report_top_products WHERE %s GROUP BY %s) sold) ranked
				WHERE rank <= $1`, among, p.columns, p.where, p.numbers)
		},
	},
	Refunds: {
		together: true, view: "report_refunds", always: []string{"currency"}, groups: []string{"status", "merchant"}, otherwise: []string{"day", "status"},
		sql: func(p plan) string {
			return fmt.Sprintf(`
				SELECT %s, sum(refunds)::bigint AS refunds, sum(amount)::bigint AS amount
				FROM report_refunds WHERE %s GROUP BY %s`, p.columns, p.where, p.numbers)
		},
	},
	SagaDurations: {
		view: "report_saga_durations", always: []string{"definition", "outcome"}, everybodys: true,
		sql: func(p plan) string {
			return fmt.Sprintf(`
				SELECT %[2]s, max(reached)::bigint AS sagas,
					min(at_most_ms) FILTER (WHERE reached * 100 >= n * 50) AS p50_ms, min(at_most_ms) FILTER (WHERE reached * 100 >= n * 90) AS p90_ms,
					min(at_most_ms) FILTER (WHERE reached * 100 >= n * 95) AS p95_ms, min(at_most_ms) FILTER (WHERE reached * 100 >= n * 99) AS p99_ms,
					max(at_most_ms) AS max_ms
				FROM (
					SELECT *, sum(sagas) OVER (PARTITION BY %[2]s ORDER BY at_most_ms) AS reached, sum(sagas) OVER (PARTITION BY %[2]s) AS n
					FROM (SELECT %[1]s, at_most_ms, sum(sagas) AS sagas FROM report_saga_durations WHERE %[3]s GROUP BY %[4]s, at_most_ms) counted) c
				GROUP BY %[2]s`, p.columns, p.names, p.where, p.numbers)
		},
	},
}

// dimensions in the order of an answer's columns, with what they are in a view.
var dimensions = []struct{ name, column string }{
	{"day", "day AS period"},
	{"week", "date_trunc('week', day)::date AS period"}, // ISO 8601: from Monday
	{"month", "date_trunc('month', day)::date AS period"},
	{"merchant", "merchant_id AS merchant"},
	{"currency", "currency"},
	{"payment_method", "payment_method"},
	{"status", "status"},
	{"code", "code"},
	{"step", "step"},
	{"sku", "sku"},
	{"definition", "definition"},
	{"outcome", "outcome"},
}

var periods = []string{"day", "week", "month"}

// plan for the dimensions that are asked for and those that always are.
func (k kind) plan(groupBy []string, where string) plan {
	var columns, numbers, names []string
	for _, d := range dimensions {
		if !slices.Contains(groupBy, d.name) && !slices.Contains(k.always, d.name) {
			continue
		}
		_, name, named := strings.Cut(d.column, " AS ")
		if !named {
			name = d.column
		}
		columns, names = append(columns, d.column), append(names, name)
		numbers = append(numbers, fmt.Sprint(len(columns)))
	}
	return plan{strings.Join(columns, ", "), strings.Join(numbers, ", "), strings.Join(names, ", "), where}
}
