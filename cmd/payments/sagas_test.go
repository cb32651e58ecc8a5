package main

import (
	"bytes"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/devstack/devtest"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider/simulator"
	"payments/internal/secret"
)

// shell runs commands with the key of whoever gives them.
type shell struct {
	t      *testing.T
	pool   *pgxpool.Pool
	pepper *secret.Pepper
	env    map[string]string
}

// newShell is for commands on a database of its own.
func newShell(t *testing.T) *shell {
	t.Helper()
	return newShellOn(t, devtest.Database(t).URL)
}

func newShellOn(t *testing.T, url string) *shell {
	t.Helper()
	pool, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	keyset, err := secret.NewPepperKeyset()
	if err != nil {
		t.Fatal(err)
	}
	pepper, err := secret.ParseMAC(keyset)
	if err != nil {
		t.Fatal(err)
	}
	return &shell{t, pool, pepper, map[string]string{"PAYMENTS_DATABASE_URL": url, "PAYMENTS_PEPPER_KEYSET": keyset}}
}

func (s *shell) key(role access.Role, merchantID, holder string) (text, id string) {
	s.t.Helper()
	text, key, err := access.NewKey(generator(), s.pepper, access.KeySpec{
		Mode: access.ModeTest, Role: role, MerchantID: merchantID, Holder: holder, APIVersion: api.NewestVersion(),
	})
	if err == nil {
		err = postgres.InTx(s.t.Context(), s.pool, func(tx pgx.Tx) error { return access.InsertKey(s.t.Context(), tx, key) })
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return text, key.ID
}

// run is a command in the hands of who has the key.
func (s *shell) run(key string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	err := run(s.t.Context(), args, func(name string) (string, bool) {
		if name == operatorKey {
			return key, key != ""
		}
		v, ok := s.env[name]
		return v, ok
	}, &stdout, &stderr)
	return stdout.String(), err
}

func (s *shell) must(key string, args ...string) string {
	s.t.Helper()
	out, err := s.run(key, args...)
	if err != nil {
		s.t.Fatalf("%q: %v", args, err)
	}
	return out
}

// Who acts on the command line is who holds the API key, as over HTTP: the second of
// the two that a verdict takes is another person, and neither another name nor another key.
func TestAVerdictOnTheCommandLineTakesTwoPersons(t *testing.T) {
	shell := newShell(t)
	pool := shell.pool
	bank, err := simulator.Open(filepath.Join(t.TempDir(), "ledger.db"), simulator.Config{}) // which is asked about the verdict
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(bank.Handler())
	defer server.Close()
	defer func() {
		if err := bank.Close(); err != nil {
			t.Error(err)
		}
	}()
	shell.env["PAYMENTS_PROVIDER_URL"] = server.URL
	merchant, saga := generator().New(payment.PrefixMerchant), generator().New(payment.PrefixSaga)
	for sql, args := range map[string][]any{
		`INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`: {merchant},
		`INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, attempted, parked, parked_from, abortable, data)
			VALUES ($1, $2, 'order', 2, 'ord', 'parked', 'authorize_payment', true, '{"step": "authorize_payment", "code": "unresolved"}', 'running', true,
				'{"payment_id": "pay_1", "amount": 1, "currency": "EUR"}')`: {merchant, saga},
	} {
		if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	ada, adasID := shell.key(access.RoleOperator, "", "ada")
	hers, _ := shell.key(access.RoleOperator, "", "ADA")
	successor := strings.TrimSpace(shell.must(ada, "keys", "rotate", adasID))
	grace, gracesID := shell.key(access.RoleOperator, "", "grace")
	shop, _ := shell.key(access.RoleMerchant, merchant, "")
	auditor, _ := shell.key(access.RoleAuditor, "", "ada")
	act := func(key string, args ...string) (string, error) {
		return shell.run(key, append([]string{"sagas"}, args...)...)
	}
	propose := []string{"propose", "-reason", "their ledger", "-rejected", "never_given", saga}
	approve := []string{"approve", "-reason", "seen", "-rejected", "never_given", saga}
	for name, c := range map[string]struct{ key, want string }{
		"no key": {"", "PAYMENTS_OPERATOR_KEY is required and not set"}, "a merchant": {shop, "PAYMENTS_OPERATOR_KEY"}, "an auditor": {auditor, "PAYMENTS_OPERATOR_KEY"},
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
	for _, key := range []string{ada, hers, successor} {
		if _, err := act(key, approve...); err == nil || !strings.Contains(err.Error(), "nother person") {
			t.Errorf("approved by who proposed: %v", err)
		}
	}
	if _, err := act(grace, "approve", "-reason", "seen", saga); err == nil || !strings.Contains(err.Error(), "-succeeded") {
		t.Errorf("approved without saying what: %v", err)
	}
	out, err := act(grace, approve...)
	for _, want := range []string{"ada     " + adasID, "grace   " + gracesID} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v, and not %q:\n%s", err, want, out)
		}
	}
}
