package access

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"payments/internal/payment"
)

var update = flag.Bool("update", false, "write testdata/policy.golden anew")

const golden = "testdata/policy.golden"

func TestPolicyMatrix(t *testing.T) {
	merchant := Principal{KeyID: "key_1", MerchantID: "mer_1", Role: RoleMerchant}
	operator := Principal{KeyID: "key_2", Role: RoleOperator}
	var b strings.Builder
	fmt.Fprintf(&b, "%-20s %-10s %s\n", "action", merchant.Role, operator.Role)
	verdict := func(p Principal, a Action) string {
		scope, err := Authorize(p, a)
		id, all := scope.Merchant()
		var e *payment.Error
		switch {
		case errors.As(err, &e) && e.Code == payment.CodeForbidden && id == "" && !all:
			return "-"
		case err == nil && all && id == "":
			return "all"
		case err == nil && !all && id == p.MerchantID && id != "":
			return "own"
		}
		t.Fatalf("%s %s: scope %+v, error %v", p.Role, a, scope, err)
		return ""
	}
	for _, a := range Actions() {
		fmt.Fprintf(&b, "%-20s %-10s %s\n", a, verdict(merchant, a), verdict(operator, a))
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the policy comes to\n%s\nand %s (-update writes it) says\n%s", b.String(), golden, want)
	}
}

func TestPolicyNamesOnlyKnownActions(t *testing.T) {
	for _, s := range policy {
		for _, a := range s.actions {
			if !slices.Contains(Actions(), a) {
				t.Errorf("the policy names %s, which the matrix does not show", a)
			}
		}
	}
}

func TestNothingIsAllowedByAccident(t *testing.T) {
	for _, p := range []Principal{{}, {Role: "root", MerchantID: "mer_1"}, {Role: RoleMerchant}} {
		for _, a := range append(Actions(), "", "payments:steal") {
			if s, err := Authorize(p, a); err == nil || s != (Scope{}) {
				t.Errorf("%+v may %q", p, a)
			}
		}
	}
	if id, all := (Scope{}).Merchant(); id != "" || all {
		t.Error("the zero scope allows something")
	}
}

func TestDecide(t *testing.T) {
	role, other := []Role{"a"}, []Role{"b"}
	act := []Action{"x"}
	for _, c := range []struct {
		name       string
		statements []statement
		want       extent
	}{
		{"no statement", nil, nothing},
		{"another role", []statement{{allow, other, act, all}}, nothing},
		{"another action", []statement{{allow, role, []Action{"y"}, all}}, nothing},
		{"an allow", []statement{{allow, role, act, own}}, own},
		{"the wider of two", []statement{{allow, role, act, all}, {allow, role, act, own}}, all},
		{"a deny before", []statement{{deny, role, act, nothing}, {allow, role, act, all}}, nothing},
		{"a deny behind", []statement{{allow, role, act, all}, {deny, role, act, nothing}}, nothing},
		{"a deny of another role", []statement{{allow, role, act, own}, {deny, other, act, nothing}}, own},
		{"an effect that is neither", []statement{{allow, role, act, all}, {"alow", role, act, all}}, nothing},
	} {
		if got := decide(c.statements, "a", "x"); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}
