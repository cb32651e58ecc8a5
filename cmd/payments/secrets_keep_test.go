package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"payments/internal/secret"
)

// stack is the directory of a stack's secrets and what its environment holds.
type stack struct {
	t    *testing.T
	dir  string
	vars map[string]string
}

func newStack(t *testing.T) *stack {
	t.Helper()
	dir := t.TempDir()
	return &stack{t, dir, map[string]string{
		"PAYMENTS_SECRETS_DIR": dir, "PAYMENTS_DATABASE_URL": "postgres://payments_app@db:5432/payments?sslmode=disable",
		"PAYMENTS_MIGRATE_DATABASE_URL": "postgres://payments_owner@db:5432/payments",
	}}
}

func (s *stack) secrets(args ...string) (stdout string, err error) {
	s.t.Helper()
	var out bytes.Buffer
	lookup := func(name string) (string, bool) { v, ok := s.vars[name]; return v, ok }
	err = run(s.t.Context(), append([]string{"secrets"}, args...), lookup, &out, s.t.Output())
	return out.String(), err
}

func (s *stack) kept() map[string]string {
	s.t.Helper()
	out, err := s.secrets("show")
	if err != nil {
		s.t.Fatal(err)
	}
	kept := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		kept[name] = value
	}
	return kept
}

func (s *stack) mustKeep(args ...string) string {
	s.t.Helper()
	out, err := s.secrets(append([]string{"keep"}, args...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *stack) files() map[string]string {
	s.t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		files[e.Name()] = string(content)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}

func TestAStackKeepsTheSecretsOfItsFirstStart(t *testing.T) {
	s := newStack(t)
	out := s.mustKeep()
	first := s.kept()
	if len(first) != len(stackSecrets) || !strings.Contains(out, "11 secrets are kept, 11 of them new") ||
		!strings.Contains(out, "docker compose run --rm -T --no-deps secrets show PAYMENTS_API_KEY\n") {
		t.Errorf("kept %d, and said %s", len(first), out)
	}
	for name, value := range first {
		if value == "" || strings.Contains(out, value) {
			t.Errorf("%s is empty, or in the output: %s", name, out)
		}
	}
	s.vars["VERSION"] = "v7"
	if out := s.mustKeep(); !strings.Contains(out, "0 of them new") || !strings.Contains(out, "  VERSION=v7 docker compose run") {
		t.Errorf("the second start says %s", out)
	}
	if again := s.kept(); !maps.Equal(first, again) {
		t.Error("the second start has other secrets")
	}
	if one, err := s.secrets("show", "PAYMENTS_API_KEY"); err != nil || one != first["PAYMENTS_API_KEY"]+"\n" {
		t.Errorf("show PAYMENTS_API_KEY: %q, %v", one, err)
	}
}

// A stack goes on without its .env file, and with one that was written of it.
func TestAStackTakesTheSecretsOfItsEnvironment(t *testing.T) {
	other := newStack(t)
	other.mustKeep()
	s := newStack(t)
	given := other.kept()
	maps.Copy(s.vars, given)
	if out := s.mustKeep(); !strings.Contains(out, "0 of them new") {
		t.Errorf("it says %s", out)
	}
	s.vars = newStack(t).vars
	s.vars["PAYMENTS_SECRETS_DIR"] = s.dir
	s.mustKeep()
	if got := s.kept(); !maps.Equal(got, given) {
		t.Error("without the environment the secrets are others")
	}
	maps.Copy(s.vars, s.kept())
	s.vars["PAYMENTS_DB_PASSWORD"] = "changed"
	s.mustKeep()
	if got := s.kept()["PAYMENTS_DB_PASSWORD"]; got != "changed" {
		t.Error("a password that was changed in the environment is not taken")
	}
}

func TestAHolderGetsItsOwnSecretsAlone(t *testing.T) {
	s, service, migrate := newStack(t), t.TempDir(), t.TempDir()
	s.vars["PAYMENTS_DB_PASSWORD"] = "a/b@c:d e%"
	s.mustKeep("-give="+service+":PAYMENTS_DATABASE_URL,PAYMENTS_API_KEY", "-give="+migrate+":PAYMENTS_MIGRATE_DATABASE_URL")
	kept := s.kept()
	for path, want := range map[string]string{
		service + "/PAYMENTS_DATABASE_URL":         "postgres://payments_app:a%2Fb%40c%3Ad%20e%25@db:5432/payments?sslmode=disable\n",
		service + "/PAYMENTS_API_KEY":              kept["PAYMENTS_API_KEY"] + "\n",
		migrate + "/PAYMENTS_MIGRATE_DATABASE_URL": "postgres://payments_owner:" + kept["PAYMENTS_OWNER_PASSWORD"] + "@db:5432/payments\n",
	} {
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s = %q, %v; want %q", filepath.Base(path), got, err, want)
		}
		// The service that it is for runs as another user.
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v", filepath.Base(path), info, err)
		}
	}
	for dir, want := range map[string]int{service: 2, migrate: 1} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != want {
			t.Errorf("%v, %v; want %d files", entries, err, want)
		}
	}
}

func TestARotatedKeysetIsTakenAndAForeignOneIsNot(t *testing.T) {
	for _, name := range []string{"PAYMENTS_PEPPER_KEYSET", "PAYMENTS_ENCRYPTION_KEYSET"} {
		s := newStack(t)
		s.mustKeep()
		for _, step := range []func(string) (string, error){secret.AddKey, secret.PromoteKey, secret.DropOldKeys} {
			next, err := step(s.kept()[name])
			if err != nil {
				t.Fatal(err)
			}
			s.vars[name] = next
			s.mustKeep()
			if s.kept()[name] != next {
				t.Errorf("%s is not the one after the step", name)
			}
		}
		other := newStack(t)
		other.mustKeep()
		before := s.files()
		s.vars[name], s.vars["PAYMENTS_DB_PASSWORD"] = other.kept()[name], "changed"
		_, err := s.secrets("keep")
		if err == nil || !strings.HasPrefix(err.Error(), name+" has no key of the keyset that this stack was started with") ||
			!strings.Contains(err.Error(), "secrets show "+name) || strings.Contains(err.Error(), s.vars[name]) {
			t.Errorf("a foreign keyset: %v", err)
		}
		if !maps.Equal(before, s.files()) {
			t.Error("a refused start has changed the secrets")
		}
	}
}

func TestADatabaseIsNotGivenFreshSecrets(t *testing.T) {
	s, database := newStack(t), t.TempDir()
	lost := s.dir
	s.mustKeep("-database=" + database)
	if err := os.WriteFile(filepath.Join(database, "PG_VERSION"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.mustKeep("-database=" + database)
	given := s.kept()

	s.dir = t.TempDir()
	s.vars["PAYMENTS_SECRETS_DIR"] = s.dir
	_, err := s.secrets("keep", "-database="+database)
	if err == nil || !strings.Contains(err.Error(), "secrets that are gone (PAYMENTS_OWNER_PASSWORD, PAYMENTS_DB_PASSWORD, PAYMENTS_PEPPER_KEYSET, PAYMENTS_ENCRYPTION_KEYSET)") {
		t.Errorf("secrets of a database are made anew: %v", err)
	}
	if files := s.files(); len(files) != 0 {
		t.Errorf("a refused start has written %d files", len(files))
	}
	// With the .env file all is well, and one that a newer version needs is made.
	maps.Copy(s.vars, given)
	delete(s.vars, "PAYMENTS_SIMULATOR_WEBHOOK_SECRET")
	if out := s.mustKeep("-database=" + database); !strings.Contains(out, "1 of them new") {
		t.Errorf("it says %s", out)
	}
	if s.dir == lost {
		t.Fatal("the same directory")
	}
}

func TestWrongSecretsAreRefused(t *testing.T) {
	const s3cret = "s3cret"
	for _, test := range []struct {
		variable, value string
		args            []string
		want            string
	}{
		{"PAYMENTS_PEPPER_KEYSET", s3cret, []string{"keep"}, "PAYMENTS_PEPPER_KEYSET is not "},
		{"PAYMENTS_OPERATOR_KEY", s3cret, []string{"keep"}, "PAYMENTS_OPERATOR_KEY is no API key: "},
		{"PAYMENTS_SECRETS_DIR", "", []string{"keep"}, "PAYMENTS_SECRETS_DIR is required and not set"},
		{"PAYMENTS_SECRETS_DIR", "", []string{"show"}, "PAYMENTS_SECRETS_DIR is required and not set"},
		{"PAYMENTS_DATABASE_URL", "", []string{"keep", "-give=DIR:PAYMENTS_DATABASE_URL"}, "PAYMENTS_DATABASE_URL is required and not set"},
		{"PAYMENTS_DATABASE_URL", "postgres://db/" + s3cret, []string{"keep", "-give=DIR:PAYMENTS_DATABASE_URL"}, "PAYMENTS_DATABASE_URL must be a Postgres URL with a user"},
		{"", "", []string{"keep", "-give=DIR:PAYMENTS_NONE"}, `there is no secret "PAYMENTS_NONE"`},
		{"", "", []string{"keep", "-give=/nowhere:PAYMENTS_API_KEY"}, "-give /nowhere: it must name a directory"},
		{"", "", []string{"keep", "-give=PAYMENTS_API_KEY"}, "it must be DIR:NAME,NAME…"},
		{"", "", []string{"keep", "now"}, `unexpected argument "now"`},
		{"", "", []string{"show", "PAYMENTS_NONE"}, `there is no secret "PAYMENTS_NONE"`},
		{"", "", []string{"show", "PAYMENTS_API_KEY"}, "PAYMENTS_API_KEY is not there yet: start the stack first"},
		{"", "", []string{"show", "a", "b"}, "secrets show takes the name of one secret, or none for all"},
	} {
		s := newStack(t)
		if test.variable != "" {
			s.vars[test.variable] = test.value
		}
		for i, arg := range test.args {
			test.args[i] = strings.Replace(arg, "DIR", t.TempDir(), 1)
		}
		_, err := s.secrets(test.args...)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), s3cret) {
			t.Errorf("%v: %v; want %s", test.args, err, test.want)
		}
		if files := s.files(); len(files) != 0 {
			t.Errorf("%v: refused, and wrote %d files", test.args, len(files))
		}
	}
}
