package main

import (
	"bytes"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"payments/internal/access"
	"payments/internal/broker"
	"payments/internal/config"
	"payments/internal/devstack/devtest"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider/simulator"
	"payments/internal/secret"
)

// clinic is a stack that is well.
type clinic struct {
	*shell
	brokers []string
	topics  *broker.Client
	bank    http.Handler
	owner   func(sql string)
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	db := devtest.Database(t)
	s := newShellOn(t, db.URL)
	c := &clinic{shell: s, brokers: devtest.Brokers(t)}
	prefix := devtest.Topic(t) + "."
	client, err := broker.NewClient(c.brokers, broker.Config{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	c.topics = client
	if err := client.EnsureTopic(t.Context(), payment.Topic, 6); err != nil {
		t.Fatal(err)
	}
	bank, err := simulator.Open(filepath.Join(t.TempDir(), "ledger.db"), simulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bank.Close(); err != nil {
			t.Error(err)
		}
	})
	c.bank = bank.Handler()
	encryption, err := secret.NewCipherKeyset()
	if err != nil {
		t.Fatal(err)
	}
	owner, err := postgres.Open(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	c.owner = func(sql string) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	maps.Copy(s.env, map[string]string{
		"PAYMENTS_MIGRATE_DATABASE_URL": db.OwnerURL, "PAYMENTS_KAFKA_BROKERS": strings.Join(c.brokers, ","), "PAYMENTS_KAFKA_PREFIX": prefix,
		"PAYMENTS_PROVIDER_URL": c.serve(c.bank), "PAYMENTS_ENCRYPTION_KEYSET": encryption,
	})
	return c
}

func (c *clinic) serve(h http.Handler) string {
	server := httptest.NewServer(h)
	c.t.Cleanup(server.Close)
	return server.URL
}

// diagnosed is what the doctor says with the variables, by check and status.
func (c *clinic) diagnosed(vars map[string]string, warnings ...string) (found []diagnosis, code int) {
	c.t.Helper()
	var out, problems bytes.Buffer
	e := environment{lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }, warnings: warnings, stdout: &out, stderr: &problems}
	code = exitCode(e.run(c.t.Context(), []string{"doctor", "-output", "json"}))
	var list listed[diagnosis]
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		c.t.Fatalf("%v: %s%s", err, &out, &problems)
	}
	return list.Data, code
}

func TestTheDoctorFindsPlantedMisconfigurations(t *testing.T) {
	c := newClinic(t)
	operator, _ := c.key(access.RoleOperator, "", "ada")
	c.env[operatorKey] = operator
	// What is stored shows whose the keysets are.
	if out, err := c.run("", "seed", "-payments", "20", "-merchants", "1", "-timelines", "0"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found, code := c.diagnosed(c.env)
	for _, f := range found {
		if f.Status != fine && f.Status != warned {
			t.Errorf("of a stack that is well: %+v", f)
		}
	}
	if code != 0 || len(found) < 10 {
		t.Fatalf("exit code %d, %+v", code, found)
	}
	pepper, err := secret.NewPepperKeyset()
	if err != nil {
		t.Fatal(err)
	}
	encryption, err := secret.NewCipherKeyset()
	if err != nil {
		t.Fatal(err)
	}
	const nobody = "127.0.0.1:1"
	late := c.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		c.bank.ServeHTTP(w, r)
	}))
	for name, p := range map[string]struct {
		set         map[string]string
		check       string
		status      verdict
		found, mend string
		code        int
	}{
		"no broker is named":            {map[string]string{"PAYMENTS_KAFKA_BROKERS": ""}, "configuration", failed, "PAYMENTS_KAFKA_BROKERS is required", "set PAYMENTS_KAFKA_BROKERS", 1},
		"a wrong duration":              {map[string]string{"PAYMENTS_PROVIDER_TIMEOUT": "2"}, "configuration", failed, "PAYMENTS_PROVIDER_TIMEOUT must be", "correct PAYMENTS_PROVIDER_TIMEOUT", 1},
		"the keysets are swapped":       {map[string]string{"PAYMENTS_PEPPER_KEYSET": encryption, "PAYMENTS_ENCRYPTION_KEYSET": pepper}, "configuration", failed, "PAYMENTS_PEPPER_KEYSET holds a key that is not", "PAYMENTS_PEPPER_KEYSET", 1},
		"another stack's pepper":        {map[string]string{"PAYMENTS_PEPPER_KEYSET": pepper}, "keysets", failed, "PAYMENTS_PEPPER_KEYSET does not make", "bring back the keyset", 1},
		"another stack's encryption":    {map[string]string{"PAYMENTS_ENCRYPTION_KEYSET": encryption}, "keysets", failed, "PAYMENTS_ENCRYPTION_KEYSET does not open", "bring back the keyset", 1},
		"a revoked or foreign key":      {map[string]string{operatorKey: operator[:len(operator)-3] + "abc"}, "operator's key", failed, operatorKey, "keys list", 1},
		"the database is away":          {map[string]string{"PAYMENTS_DATABASE_URL": "postgres://u:p@" + nobody + "/d"}, "database", away, "PAYMENTS_DATABASE_URL", "start Postgres", 3},
		"the read database is away":     {map[string]string{"PAYMENTS_READ_DATABASE_URL": "postgres://u:p@" + nobody + "/d"}, "database", away, "PAYMENTS_READ_DATABASE_URL", "PAYMENTS_READ_DATABASE_URL", 3},
		"a wrong password":              {map[string]string{"PAYMENTS_DATABASE_URL": strings.Replace(c.env["PAYMENTS_DATABASE_URL"], "@", "x@", 1)}, "database", failed, "password", "correct PAYMENTS_DATABASE_URL", 1},
		"the service is the owner":      {map[string]string{"PAYMENTS_DATABASE_URL": c.env["PAYMENTS_MIGRATE_DATABASE_URL"]}, "role", warned, "owns the tables", "role of its own", 0},
		"the service's role migrates":   {map[string]string{"PAYMENTS_MIGRATE_DATABASE_URL": c.env["PAYMENTS_DATABASE_URL"] + "?application_name=x"}, "owner", failed, "does not own", "PAYMENTS_MIGRATE_DATABASE_URL", 1},
		"Kafka is away":                 {map[string]string{"PAYMENTS_KAFKA_BROKERS": nobody}, "kafka", away, "PAYMENTS_KAFKA_BROKERS", "start Kafka", 3},
		"no topic":                      {map[string]string{"PAYMENTS_KAFKA_PREFIX": c.env["PAYMENTS_KAFKA_PREFIX"] + "other."}, "topic", warned, "no topic", "role relay", 0},
		"other partitions":              {map[string]string{"PAYMENTS_KAFKA_PARTITIONS": "12"}, "topic", warned, "has 6 partitions", "set PAYMENTS_KAFKA_PARTITIONS to 6", 0},
		"too few replicas":              {map[string]string{"PAYMENTS_KAFKA_REPLICATION_FACTOR": "3"}, "topic", warned, "1 replicas and 3 are configured", "strengthen the topic", 0},
		"the provider is away":          {map[string]string{"PAYMENTS_PROVIDER_URL": "http://" + nobody}, "provider", away, "has not named the account", "PAYMENTS_PROVIDER_URL", 3},
		"the provider's clock is late":  {map[string]string{"PAYMENTS_PROVIDER_URL": late}, "clock", failed, "the provider's differ", "NTP", 1},
		"a certificate without its key": {map[string]string{"PAYMENTS_TLS_CERT": "/nowhere/cert.pem", "PAYMENTS_TLS_KEY": "/nowhere/key.pem"}, "certificate", failed, "no such file", "PEM", 1},
		"the API is away":               {map[string]string{"PAYMENTS_URL": "http://" + nobody}, "api", away, "PAYMENTS_URL", "start the service", 3},
	} {
		vars := maps.Clone(c.env)
		maps.Copy(vars, p.set)
		found, code := c.diagnosed(vars)
		c.finds(name, found, p.check, p.status, p.found, p.mend)
		if code != p.code {
			t.Errorf("%s: exit code %d, want %d: %+v", name, code, p.code, found)
		}
	}
	found, _ = c.diagnosed(c.env, config.Unknown([]string{"PAYMENTS_DATABASEURL=x"})...)
	c.finds("a mistyped variable", found, "configuration", warned, "PAYMENTS_DATABASEURL is not a known variable", "correct its name")
}

func (c *clinic) finds(name string, found []diagnosis, check string, status verdict, text, mend string) {
	c.t.Helper()
	for _, f := range found {
		if f.Check == check && f.Status == status && strings.Contains(f.Found, text) && f.Fix != nil && strings.Contains(*f.Fix, mend) {
			return
		}
	}
	c.t.Errorf("%s: nobody says %s %s %q, mend %q: %+v", name, status, check, text, mend, found)
}

func TestTheDoctorFindsADamagedDatabase(t *testing.T) {
	c := newClinic(t)
	for _, p := range []struct{ harm, heal, check, found, mend string }{
		{`ALTER TABLE payments NO FORCE ROW LEVEL SECURITY`, `ALTER TABLE payments FORCE ROW LEVEL SECURITY`, "row-level security", "not in force on payments", "ENABLE ROW LEVEL SECURITY"},
		{`ALTER TABLE sagas DISABLE ROW LEVEL SECURITY`, `ALTER TABLE sagas ENABLE ROW LEVEL SECURITY`, "row-level security", "not in force on sagas", "ENABLE ROW LEVEL SECURITY"},
		{`INSERT INTO provider_accounts (account, inherits) VALUES ('stripe:acct_1', true)`, `DELETE FROM provider_accounts`, "provider", "made with stripe:acct_1", "bring back the credentials of stripe:acct_1"},
		{`UPDATE goose_db_version SET version_id = -version_id WHERE version_id > 1`, `UPDATE goose_db_version SET version_id = -version_id WHERE version_id < -1`, "database", "the schema is at version 1", "payments migrate"},
	} {
		c.owner(p.harm)
		found, code := c.diagnosed(c.env)
		c.finds(p.harm, found, p.check, failed, p.found, p.mend)
		if code != exitFound {
			t.Errorf("%s: exit code %d: %+v", p.harm, code, found)
		}
		c.owner(p.heal)
	}
	if found, code := c.diagnosed(c.env); code != 0 {
		t.Errorf("healed: exit code %d: %+v", code, found)
	}
}
