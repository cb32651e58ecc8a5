package main

import (
	"strings"
	"testing"

	"payments/internal/access"
	"payments/internal/payment"
)

// With the database's and the service's secrets at hand, a command acts on keys as the API
// does: by two persons, once there are two operators. The first two are made by who installs.
func TestKeysOnTheCommandLineTakeTwoPersons(t *testing.T) {
	shell := newShell(t)
	pool := shell.pool
	merchant := generator().New(payment.PrefixMerchant)
	if _, err := pool.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, merchant); err != nil {
		t.Fatal(err)
	}
	refused := func(as, want string, args ...string) {
		t.Helper()
		if out, err := shell.run(as, append([]string{"keys"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("keys %q: %v\n%s", args, err, out)
		}
	}
	keys := func(as string, args ...string) string {
		t.Helper()
		return strings.TrimSpace(shell.must(as, append([]string{"keys"}, args...)...))
	}
	idOf := func(text string) string { return payment.PrefixKey + "_" + text[len("sk_test_"):][:26] }
	shop := []string{"create", "-role", "merchant", "-merchant", merchant}

	// Nobody makes any other key before there are operators.
	refused("", "PAYMENTS_OPERATOR_KEY", shop...)
	refused("", "PAYMENTS_OPERATOR_KEY", "create", "-role", "auditor", "-holder", "ann")
	ada := keys("", "create", "-role", "operator", "-holder", "Ada")
	her := keys("", "create", "-role", "operator", "-holder", "ADA") // still one person
	grace := keys("", "create", "-role", "operator", "-holder", "grace")
	refused("", "Two persons", "create", "-role", "operator", "-holder", "nobody")
	for _, as := range []string{ada, her} {
		refused(as, "name one API key", "revoke")
	}
	// Nor after one of the two, or both, lost their keys.
	keys(ada, "revoke", idOf(grace))
	refused("", "Two persons", "create", "-role", "operator", "-holder", "grace")
	refused(grace, "PAYMENTS_OPERATOR_KEY", "rotate", idOf(grace))
	if _, err := pool.Exec(t.Context(), `UPDATE api_keys SET revoked_at = NULL WHERE id = $1`, idOf(grace)); err != nil {
		t.Fatal(err)
	}
	// The seed makes no further operator, and no key of a merchant that has one.
	for range 2 {
		if out := shell.must("", "seed"); strings.Contains(out, "PAYMENTS_OPERATOR_KEY") {
			t.Errorf("the seed has made an operator: %s", out)
		}
	}
	var seeded int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM key_acts WHERE source = 'seed'`).Scan(&seeded); err != nil || seeded != 2 {
		t.Errorf("%d acts of the seed (%v)", seeded, err)
	}

	for _, as := range []string{ada, her} {
		first := keys(as, shop...)
		refused(ada, "nother person", "approve", idOf(first))
		refused(her, "nother person", "approve", idOf(first))
		second := keys(grace, "approve", idOf(first))
		if _, err := access.ParseKey(first + second); err != nil {
			t.Error(err)
		}
		refused(first+second, "PAYMENTS_OPERATOR_KEY", "approve", idOf(first))
	}
	next := keys(ada, "rotate", idOf(grace))
	if _, err := access.ParseKey(next); err == nil {
		t.Error("a colleague's key is rotated alone")
	}
	own := keys(grace, "rotate", idOf(grace))
	if _, err := access.ParseKey(own); err != nil {
		t.Error(err)
	}
	refused(ada, "nother person", "approve", idOf(next))
	refused(own, "already rotated", "approve", idOf(next)) // it was rotated meanwhile
	keys(ada, "pin", "-version", "2026-11-01", idOf(own))

	acts := shell.must("", "keys", "acts", idOf(own))
	for _, want := range []string{"pin ", "rotate ", idOf(grace), "command_line", "@", "2026-11-01", "Ada", "grace"} {
		if !strings.Contains(acts, want) {
			t.Errorf("the record has no %q:\n%s", want, acts)
		}
	}
}
