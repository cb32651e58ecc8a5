package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/devstack/devtest"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
)

// Who acts on the command line is who holds the API key, as over HTTP: the second of
// the two that a verdict takes is another key, and no other name.
func TestAVerdictOnTheCommandLineTakesTwoKeys(t *testing.T) {
	url := devtest.Database(t).URL
	pool, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	keyset, err := secret.NewPepperKeyset()
	if err != nil {
		t.Fatal(err)
	}
	pepper, err := secret.ParseMAC(keyset)
	if err != nil {
		t.Fatal(err)
	}
	merchant, saga := generator().New(payment.PrefixMerchant), generator().New(payment.PrefixSaga)
	for sql, args := range map[string][]any{
		`INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`: {merchant},
		`INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, attempted, parked, parked_from, abortable, data)
			VALUES ($1, $2, 'order', 2, 'ord', 'parked', 'authorize_payment', true, '{"step": "authorize_payment", "code": "unresolved"}', 'running', true, '{}')`: {merchant, saga},
	} {
		if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	made := func(role access.Role, merchantID string) (text, id string) {
		text, key, err := access.NewKey(generator(), pepper, access.ModeTest, role, merchantID)
		if err == nil {
			err = postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error { return access.InsertKey(t.Context(), tx, key) })
		}
		if err != nil {
			t.Fatal(err)
		}
		return text, key.ID
	}
	ada, adasID := made(access.RoleOperator, "")
	grace, gracesID := made(access.RoleOperator, "")
	shop, _ := made(access.RoleMerchant, merchant)
	auditor, _ := made(access.RoleAuditor, "")
	act := func(key string, args ...string) (string, error) {
		env := map[string]string{"PAYMENTS_DATABASE_URL": url, "PAYMENTS_PEPPER_KEYSET": keyset, "PAYMENTS_OPERATOR_KEY": key}
		var stdout, stderr bytes.Buffer
		err := run(t.Context(), append([]string{"sagas"}, args...), func(n string) (string, bool) { v, ok := env[n]; return v, ok }, &stdout, &stderr)
		return stdout.String(), err
	}
	propose := []string{"propose", "-reason", "their ledger", "-rejected", "never_given", saga}
	approve := []string{"approve", "-reason", "seen", "-rejected", "never_given", saga}
	for name, c := range map[string]struct{ key, want string }{
		"no key": {"", "PAYMENTS_OPERATOR_KEY is missing"}, "a merchant": {shop, "PAYMENTS_OPERATOR_KEY"}, "an auditor": {auditor, "PAYMENTS_OPERATOR_KEY"},
		"a mistyped key": {ada[:len(ada)-1] + "!", "PAYMENTS_OPERATOR_KEY"},
	} {
		if _, err := act(c.key, propose...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := act(ada, append([]string{"propose", "-operator", "grace"}, propose[1:]...)...); err == nil {
		t.Error("a name can be typed")
	}
	if _, err := act(ada, propose...); err != nil {
		t.Fatal(err)
	}
	if _, err := act(ada, approve...); err == nil || !strings.Contains(err.Error(), "nother operator") {
		t.Errorf("approved by who proposed: %v", err)
	}
	if _, err := act(grace, "approve", "-reason", "seen", saga); err == nil || !strings.Contains(err.Error(), "-succeeded") {
		t.Errorf("approved without saying what: %v", err)
	}
	out, err := act(grace, approve...)
	if err != nil || !strings.Contains(out, adasID) || !strings.Contains(out, gracesID) {
		t.Errorf("%v\n%s", err, out)
	}
}
