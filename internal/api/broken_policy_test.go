package api

import (
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/payment"
)

const (
	policyDir    = "../access/policy"
	policyErrors = "payments_authorization_errors_total"
)

// policies are the service's own and one more, by a schema that says, and the service
// does not know, that each key has a clearance and each refund a fee.
func policies(t *testing.T, more string) fs.FS {
	t.Helper()
	all := fstest.MapFS{"more.cedar": {Data: []byte(more)}}
	names, err := fs.Glob(os.DirFS(policyDir), "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(policyDir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = &fstest.MapFile{Data: []byte(strings.NewReplacer("merchant?: Merchant,", "merchant?: Merchant, clearance: Long,",
			"currency: String }", "currency: String, fee: Long }").Replace(string(b)))}
	}
	return all
}

// judged is a world with one more policy, and the metrics of its policies.
func judged(t *testing.T, more string) (*world, *prometheus.Registry) {
	t.Helper()
	w, metrics := newWorld(t), prometheus.NewRegistry()
	a, err := access.LoadAuthorizer(policies(t, more), slog.New(slog.NewJSONHandler(w.log, nil)), metrics)
	if err != nil {
		t.Fatal(err)
	}
	c := w.api
	c.Authorizer, c.Registerer = a, prometheus.NewRegistry()
	w.server = w.serve(c)
	return w, metrics
}

// told checks that the operator learns which policy failed, of each of so many questions.
func (w *world) told(metrics *prometheus.Registry, questions int) {
	w.t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	counted := 0.0
	for _, f := range families {
		if f.GetName() == policyErrors {
			counted = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	logged := strings.Count(w.log.String(), `"level":"ERROR","msg":"a policy could not be evaluated: denied","policies":["broken"]`)
	if counted != float64(questions) || logged != questions {
		w.t.Errorf("%d questions could not be answered; %v are counted, %d logged", questions, counted, logged)
	}
}

var pathParameter = regexp.MustCompile(`\{[a-z]+\}`)

// While a policy cannot be evaluated everything is denied, whatever other policies
// say, by the problem that every refusal is; the cause is the operator's alone.
func TestEverythingIsDeniedWhileAPolicyFails(t *testing.T) {
	fine, _ := judged(t, `@id("fine") forbid (principal, action, resource) when { false };`)
	if a := fine.do("GET", "/v1/payments", fine.merchant, ""); a.status != 200 {
		t.Fatalf("the policies deny without failing: %d %s", a.status, a.body)
	}
	for name, more := range map[string]string{
		"a forbid with an attribute that is missing": `@id("broken") forbid (principal, action, resource) when { principal.clearance < 3 };`,
		"a permit with an attribute that is missing": `@id("broken") permit (principal, action, resource) when { principal.clearance >= 3 };`,
		"a number that overflows":                    `@id("broken") forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };`,
	} {
		t.Run(name, func(t *testing.T) {
			w, metrics := judged(t, more)
			before, asked := w.rows(), 0
			for _, rt := range (&server{Config: w.api}).routes() {
				if rt.public || rt.signed {
					continue
				}
				status, code, detail := 403, payment.CodeForbidden, "The role of this API key does not permit this."
				if rt.hides {
					status, code, detail = 404, payment.CodeNotFound, "There is no such object."
				}
				for _, key := range []string{w.merchant, w.reader, w.support, w.operator, w.auditor} {
					a := w.do(rt.method, pathParameter.ReplaceAllString(rt.pattern, "pay_"+freshID), key, "")
					asked++
					w.refused(rt.method+" "+rt.pattern, a, status, code)
					if a.at(t, "detail") != detail || strings.Contains(a.body, `"errors"`) || a.header.Get("Retry-After") != "" {
						t.Errorf("%s %s: %s", rt.method, rt.pattern, a.body)
					}
				}
			}
			w.told(metrics, asked)
			if got := w.rows(); got != before {
				t.Errorf("%d rows, there were %d", got, before)
			}
			if a := w.do("GET", "/openapi.yaml", "", ""); a.status != 200 {
				t.Errorf("what anybody may read: %d", a.status)
			}
		})
	}
}

// What is asked on the way is denied as well: of a refund the amount, before anything
// of it is committed, and of a payment the customer's address.
func TestAPolicyThatFailsOnTheWayDenies(t *testing.T) {
	w, metrics := judged(t, `@id("broken") forbid (principal, action == Action::"refunds:create", resource) when { context has refund && context.refund.fee > 0 };`)
	id := w.placed("A-1", "")
	w.make(id, payment.StatusSucceeded)
	before := w.rows()
	a := w.do("POST", "/v1/payments/"+id+"/refunds", w.merchant, `{"amount": 1}`, key("r-1")...)
	w.refused("a refund", a, 403, payment.CodeForbidden)
	w.told(metrics, 1)
	var refunds int
	if err := w.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM refunds) + (SELECT sum(amount_refunding) FROM payments)`).Scan(&refunds); err != nil ||
		refunds != 0 || w.rows() != before || strings.Contains(a.body, "fee") || strings.Contains(a.body, "polic") {
		t.Errorf("%d refunds or amounts, %v; %s", refunds, err, a.body)
	}

	w, metrics = judged(t, `@id("broken") forbid (principal, action == Action::"confidential:read", resource) when { principal.clearance < 3 };`)
	id = w.placed("A-1", "") // each request asks
	w.project()
	a = w.do("GET", "/v1/payments/"+id, w.merchant, "")
	if a.status != 200 || strings.Contains(a.body, "ada@") || a.at(t, "customer.email") != masked {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.told(metrics, 2)
}

// The metric that counts it is the one that calls somebody.
func TestAPolicyThatFailsCallsSomebody(t *testing.T) {
	alerts, err := os.ReadFile("../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`alert: PaymentsPolicyFailing\s+expr: .*increase\(` + policyErrors + `\[5m\]\)\) > 0`).Match(alerts) {
		t.Errorf("no alert on %s", policyErrors)
	}
}
