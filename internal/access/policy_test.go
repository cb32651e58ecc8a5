package access

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cedar-policy/cedar-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/payment"
)

var update = flag.Bool("update", false, "write testdata/policy.golden anew")

const golden = "testdata/policy.golden"

func newTestAuthorizer(t *testing.T) *Authorizer {
	t.Helper()
	a, err := NewAuthorizer(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func principal(r Role) Principal {
	p := Principal{KeyID: "key_1", Role: r}
	if r.OfMerchant() {
		p.MerchantID = "mer_1"
	}
	return p
}

func forbidden(err error) bool {
	e, ok := errors.AsType[*payment.Error](err)
	return ok && e.Code == payment.CodeForbidden
}

func TestPolicyMatrix(t *testing.T) {
	a := newTestAuthorizer(t)
	var b strings.Builder
	row := func(name any, verdict func(Role) string) {
		fmt.Fprintf(&b, "%-20s", name)
		for _, r := range Roles() {
			fmt.Fprintf(&b, " %-15s", verdict(r))
		}
		b.WriteString("\n")
	}
	row("action", func(r Role) string { return string(r) })
	for _, do := range Actions() {
		row(do, func(r Role) string {
			p := principal(r)
			d, err := a.Authorize(t.Context(), p, do)
			id, all := d.Scope.Merchant()
			switch {
			case forbidden(err) && d == (Decision{}):
				return "-"
			case err == nil && all && id == "":
				return "all"
			case err == nil && !all && id == p.MerchantID && id != "":
				return "own"
			}
			t.Fatalf("%s %s: %+v, error %v", r, do, d, err)
			return ""
		})
	}
	got := strings.ReplaceAll(b.String(), " \n", "\n")
	for strings.Contains(got, " \n") {
		got = strings.ReplaceAll(got, " \n", "\n")
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the policies come to\n%s\nand %s (-update writes it) says\n%s", got, golden, want)
	}
}

// The code, the schema and the database have one list of roles and one of actions.
func TestTheSchemaKnowsWhatTheCodeKnows(t *testing.T) {
	dir, err := fs.Sub(policyFiles, "policy")
	if err != nil {
		t.Fatal(err)
	}
	_, schema, err := loadPolicies(dir)
	if err != nil {
		t.Fatal(err)
	}
	var actions, roles []string
	for uid := range schema.Actions {
		actions = append(actions, string(uid.ID))
	}
	for _, uid := range schema.Enums["Role"].Values {
		roles = append(roles, string(uid.ID))
	}
	same := func(what string, got []string, want []string) {
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %q, the code %q", what, got, want)
		}
	}
	same("actions", actions, names(Actions()))
	same("roles", roles, names(Roles()))
	pool := open(t)
	for _, r := range Roles() {
		var ok bool
		if err := pool.QueryRow(t.Context(), `SELECT pg_get_constraintdef(oid) LIKE '%''' || $1 || '''%' FROM pg_constraint
			WHERE conname = 'api_keys_role_check'`, r).Scan(&ok); err != nil || !ok {
			t.Errorf("the database does not know the role %s: %v", r, err)
		}
	}
}

func names[T ~string](all []T) (s []string) {
	for _, v := range all {
		s = append(s, string(v))
	}
	return s
}

func TestNothingIsAllowedByAccident(t *testing.T) {
	a := newTestAuthorizer(t)
	for _, p := range []Principal{{}, {Role: "root", MerchantID: "mer_1"}, {Role: RoleMerchant}, {Role: RoleMerchantReader}, {MerchantID: "mer_1"}} {
		for _, do := range append(Actions(), "", "payments:steal") {
			if d, err := a.Authorize(t.Context(), p, do); !forbidden(err) || d != (Decision{}) {
				t.Errorf("%+v may %q", p, do)
			}
		}
	}
	if id, all := (Scope{}).Merchant(); id != "" || all {
		t.Error("the zero scope allows something")
	}
}

func TestTheConfidentialIsMaskedByPolicy(t *testing.T) {
	a := newTestAuthorizer(t)
	for r, shown := range map[Role]bool{
		RoleMerchant: true, RoleMerchantReader: true, RoleOperator: true, RoleSupport: false, RoleAuditor: false,
	} {
		if d, err := a.Authorize(t.Context(), principal(r), PaymentsRead); err != nil || d.Confidential != shown {
			t.Errorf("%s: %+v, %v", r, d, err)
		}
	}
}

func TestSupportRefundsUpToALimit(t *testing.T) {
	a := newTestAuthorizer(t)
	for _, c := range []struct {
		role     Role
		amount   int64
		currency string
		permit   bool
	}{
		{RoleSupport, 1, "EUR", true}, {RoleSupport, 10_000, "EUR", true}, {RoleSupport, 10_001, "EUR", false},
		{RoleSupport, 15_000, "JPY", true}, {RoleSupport, 15_001, "JPY", false}, {RoleSupport, 1, "KWD", false},
		{RoleMerchant, payment.MaxAmount, "EUR", true}, {RoleMerchantReader, 1, "EUR", false},
		{RoleOperator, 1, "EUR", false}, {RoleAuditor, 1, "EUR", false},
	} {
		if err := a.AuthorizeRefund(t.Context(), principal(c.role), FirstRefund(money(t, c.amount, c.currency))); (err == nil) != c.permit || err != nil && !forbidden(err) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// What was given back before counts: for the payment, and by the person today.
func TestSupportHasABudget(t *testing.T) {
	a := newTestAuthorizer(t)
	for _, c := range []struct {
		ofPayment, ofPerson int64
		currency            string
		permit              bool
	}{
		{10_000, 100_000, "EUR", true}, {10_001, 10_001, "EUR", false}, {1, 100_001, "EUR", false}, {10_000, 100_001, "USD", false},
		{15_000, 150_000, "JPY", true}, {15_001, 150_000, "JPY", false}, {15_000, 150_001, "JPY", false}, {1, 1, "KWD", false},
	} {
		r := Refund{Amount: money(t, 1, c.currency), OfPayment: c.ofPayment, OfPersonToday: c.ofPerson}
		if err := a.AuthorizeRefund(t.Context(), principal(RoleSupport), r); (err == nil) != c.permit || err != nil && !forbidden(err) {
			t.Errorf("%+v: %v", c, err)
		}
		if err := a.AuthorizeRefund(t.Context(), principal(RoleMerchant), r); err != nil {
			t.Errorf("a merchant has a budget: %v", err)
		}
	}
}

func money(t *testing.T, amount int64, currency string) payment.Money {
	t.Helper()
	c, err := payment.ParseCurrency(currency)
	if err != nil {
		t.Fatal(err)
	}
	m, err := payment.NewMoney(amount, c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExplainNamesThePolicies(t *testing.T) {
	a := newTestAuthorizer(t)
	much := FirstRefund(money(t, 10_001, "EUR"))
	for _, c := range []struct {
		role   Role
		do     Action
		refund *Refund
		scope  Scope
		by     []string
	}{
		{RoleMerchant, PaymentsCreate, nil, Scope{merchant: "mer_1"}, []string{"merchant-writes-its-own"}},
		{RoleOperator, PaymentsCreate, nil, Scope{}, []string{"operator-moves-no-money"}},
		{RoleSupport, RefundsCreate, nil, Scope{all: true}, []string{"support-refunds"}},
		{RoleSupport, RefundsCreate, &much, Scope{}, []string{"support-refund-limit"}},
		{RoleSupport, PaymentsCreate, nil, Scope{}, nil}, // nothing matches
		{RoleAuditor, PaymentsCancel, nil, Scope{}, []string{"auditor-changes-nothing"}},
	} {
		e := a.Explain(principal(c.role), c.do, c.refund)
		if e.Scope != c.scope || !slices.Equal(e.Policies, c.by) || e.Failed != nil {
			t.Errorf("%s %s: %+v", c.role, c.do, e)
		}
	}
}

// unchecked are policies that nobody held against the schema.
func unchecked(t *testing.T, text string) cedarPolicies {
	t.Helper()
	set, err := parsePolicies(fstest.MapFS{"p.cedar": {Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return cedarPolicies{set}
}

func TestForbidWins(t *testing.T) {
	const permit, forbid = `@id("p") permit (principal, action, resource);`, `@id("f") forbid (principal in Role::"support", action, resource);`
	for _, text := range []string{permit + forbid, forbid + permit} {
		p := unchecked(t, text)
		for role, want := range map[Role]bool{RoleSupport: false, RoleAuditor: true} {
			if got := p.ask(question{principal: principal(role), action: PaymentsRead}); got.allowed != want {
				t.Errorf("%s: %+v", role, got)
			}
		}
	}
}

// Cedar skips a policy that fails, so that a forbid with an error would allow:
// everything is denied instead, and only those who run the service learn why.
func TestAnErrorInAPolicyIsADeny(t *testing.T) {
	const broken = `@id("allow-all") permit (principal, action, resource);
		@id("broken") forbid (principal, action, resource) when { principal.clearance < 3 };`
	set := unchecked(t, broken)
	if decision, _ := cedar.Authorize(set.set, cedar.EntityMap{}, cedar.Request{}); decision != cedar.Allow {
		t.Fatal("Cedar does not skip the broken forbid any more: is the check of its errors still needed?")
	}
	var log bytes.Buffer
	a, err := newAuthorizer(set, slog.New(slog.NewJSONHandler(&log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Roles() {
		for _, do := range Actions() {
			d, err := a.Authorize(t.Context(), principal(r), do)
			if d != (Decision{}) || !forbidden(err) || strings.Contains(err.Error(), "broken") || err.Error() != errForbidden().Error() {
				t.Errorf("%s %s: %+v, %v", r, do, d, err)
			}
		}
		if err := a.AuthorizeRefund(t.Context(), principal(r), FirstRefund(money(t, 1, "EUR"))); !forbidden(err) {
			t.Errorf("%s refunds: %v", r, err)
		}
		if e := a.Explain(principal(r), PaymentsRead, nil); e.Scope != (Scope{}) || !slices.Equal(e.Failed, []string{"broken"}) {
			t.Errorf("%s: %+v", r, e)
		}
	}
	if n := testutil.ToFloat64(a.failures); n == 0 || !strings.Contains(log.String(), `"policies":["broken"]`) {
		t.Errorf("%v failures counted, logged %s", n, log.String())
	}
}

func TestPoliciesThatDoNotFitAreRefused(t *testing.T) {
	whole, err := fs.Sub(policyFiles, "policy")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := fs.ReadFile(whole, "schema.cedarschema")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no cedar":             `permit all`,
		"no id":                `permit (principal, action, resource);`,
		"an id twice":          `@id("a") permit (principal, action, resource); @id("a") permit (principal, action, resource);`,
		"an unknown role":      `@id("a") permit (principal in Role::"root", action, resource);`,
		"an unknown action":    `@id("a") permit (principal, action == Action::"payments:steal", resource);`,
		"an unknown attribute": `@id("a") permit (principal, action, resource) when { principal.clearance == 1 };`,
		"an optional attribute taken for granted": `@id("a") permit (principal, action, resource is Merchant) when { principal.merchant == resource };`,
	} {
		if _, _, err := loadPolicies(fstest.MapFS{"schema.cedarschema": {Data: schema}, "p.cedar": {Data: []byte(text)}}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, _, err := loadPolicies(fstest.MapFS{"schema.cedarschema": {Data: schema}}); err == nil {
		t.Error("no policies at all are accepted")
	}
}

func BenchmarkAuthorize(b *testing.B) {
	a, err := NewAuthorizer(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := a.Authorize(b.Context(), principal(RoleMerchant), PaymentsCreate); err != nil {
			b.Fatal(err)
		}
	}
}
