package main

import (
	"strings"
	"testing"

	"payments/internal/access"
	"payments/internal/payment"
)

func TestKeysFromTheCommandLineHaveHolders(t *testing.T) {
	shell := newShell(t)
	pool := shell.pool
	merchant := generator().New(payment.PrefixMerchant)
	if _, err := pool.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, merchant); err != nil {
		t.Fatal(err)
	}
	ada, _ := shell.key(access.RoleOperator, "", "ada")
	for _, args := range [][]string{
		{"-role", "operator"}, {"-role", "auditor"}, {"-role", "support", "-holder", ""}, {"-role", "operator", "-holder", "ada "},
		{"-role", "merchant", "-merchant", merchant, "-holder", "a\tb"},
	} {
		if out, err := shell.run(ada, append([]string{"keys", "create"}, args...)...); err == nil || !strings.Contains(err.Error(), "holder") {
			t.Errorf("keys create %q: %v\n%s", args, err, out)
		}
	}
	first := strings.TrimSpace(shell.must("", "keys", "create", "-role", "operator", "-holder", "Ada Lovelace"))
	grace, _ := shell.key(access.RoleOperator, "", "grace")
	id := func(text string) string { return payment.PrefixKey + "_" + text[len("sk_test_"):][:26] }
	made := func(args ...string) string {
		t.Helper()
		part := strings.TrimSpace(shell.must(ada, args...))
		text := part + strings.TrimSpace(shell.must(grace, "keys", "approve", id(part)))
		c, err := access.ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		return c.KeyID
	}
	for id, want := range map[string]string{
		id(first): "operator  Ada Lovelace",
		id(strings.TrimSpace(shell.must(first, "keys", "rotate", id(first)))):                        "operator  Ada Lovelace",
		made("keys", "create", "-role", "merchant", "-merchant", merchant):                           "merchant " + merchant,
		made("keys", "create", "-role", "merchant", "-merchant", merchant, "-holder", "shop's cron"): "merchant " + merchant + " shop's cron",
	} {
		list := shell.must("", "keys", "list")
		at := strings.Index(list, id)
		line, _, _ := strings.Cut(list[at:], "\n")
		if got := strings.Join(strings.Fields(line), " "); !strings.HasPrefix(got, id+" "+strings.Join(strings.Fields(want), " ")) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
