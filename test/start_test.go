package test

import (
	"context"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"payments/internal/devstack/devtest"
)

// Whatever is wrong with the surroundings stops the start with one sentence that
// names the variable and does not repeat a secret.
func TestAWrongStartSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	free := "127.0.0.1:0"
	wrongPassword := strings.Replace(w.vars["PAYMENTS_DATABASE_URL"], "@", canary+"@", 1)
	const unset = ""
	for _, c := range []struct{ command, variable, value, want string }{
		{"serve", "PAYMENTS_DATABASE_URL", unset, "is required and not set"},
		{"serve", "PAYMENTS_KAFKA_BROKERS", unset, "is required and not set"},
		{"serve", "PAYMENTS_PROVIDER_URL", unset, "is required and not set"},
		{"serve", "PAYMENTS_PEPPER_KEYSET", unset, "is required and not set"},
		{"serve", "PAYMENTS_ENCRYPTION_KEYSET", unset, "is required and not set"},
		{"serve", "PAYMENTS_DATABASE_URL", "mysql://u:" + canary + "@h/d", "must be a Postgres URL"},
		{"serve", "PAYMENTS_DATABASE_URL", wrongPassword, "password authentication failed"},
		{"serve", "PAYMENTS_READ_DATABASE_URL", wrongPassword, "password authentication failed"},
		{"serve", "PAYMENTS_PEPPER_KEYSET", canary, "is not"},
		{"serve", "PAYMENTS_ROLES", "api," + canary, "word 2 is none of them"},
		{"serve", "PAYMENTS_KAFKA_PREFIX", canary + "/", "letters, digits"},
		{"serve", "PAYMENTS_PROVIDER_TIMEOUT", "2", "must be a duration"},
		{"serve", "PAYMENTS_ADDR", canary, "must be host:port"},
		{"serve", "PAYMENTS_ADDR", taken.Addr().String(), "address already in use"},
		{"serve", "PAYMENTS_ADMIN_ADDR", taken.Addr().String(), "address already in use"},
		{"simulator", "PAYMENTS_SIMULATOR_DATA", unset, "is required and not set"},
		{"simulator", "PAYMENTS_SIMULATOR_DATA", w.dir, "directory"},
		{"simulator", "PAYMENTS_SIMULATOR_ADDR", taken.Addr().String(), "address already in use"},
		{"migrate", "PAYMENTS_DATABASE_URL", unset, "is required and not set"},
		{"migrate", "PAYMENTS_MIGRATE_DATABASE_URL", wrongPassword, "password authentication failed"},
		{"seed", "PAYMENTS_DATABASE_URL", unset, "is required and not set"},
		{"seed", "PAYMENTS_PEPPER_KEYSET", canary, "is not"},
		{"seed", "PAYMENTS_API_KEY", canary, "key"},
		{"audit", "PAYMENTS_DATABASE_URL", wrongPassword, "password authentication failed"},
		{"audit", "PAYMENTS_PROVIDER_URL", unset, "is required and not set"},
	} {
		vars := maps.Clone(w.vars)
		vars["PAYMENTS_ADDR"], vars["PAYMENTS_ADMIN_ADDR"], vars["PAYMENTS_SIMULATOR_ADDR"] = free, free, free
		vars["PAYMENTS_SIMULATOR_DATA"] = filepath.Join(t.TempDir(), "simulator.db")
		vars[c.variable] = c.value
		if c.value == unset {
			delete(vars, c.variable)
		}
		w.fails(c.variable, c.want, vars, c.command)
	}
	nobody := maps.Clone(w.vars)
	nobody["PAYMENTS_PROVIDER_URL"] = "http://" + free
	w.fails("", "provider's ledger", nobody, "audit")
	for _, args := range [][]string{{"serve", "now"}, {"audit", "-settled", "now"}, {"demo", "now"}, {"healthcheck"}, {"pay"}, {}} {
		w.fails("", "", w.vars, args...)
	}
}

// What is checked at the start is checked as well when Postgres was away at the start: the
// process ends once Postgres is back and does not fit, and has written nothing to an old schema.
func TestAWrongDatabaseThatWasAwayAtTheStartEndsTheService(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ harm, variable, want string }{
		"a changed saga": {
			`INSERT INTO saga_definitions (name, version, hash) SELECT 'order', n, sha256('other steps') FROM generate_series(1, 99) AS n`, "PAYMENTS_DATABASE_URL", "a changed definition needs a new version",
		},
		"an old schema":         {`DELETE FROM goose_db_version WHERE version_id > 1`, "PAYMENTS_DATABASE_URL", "run `payments migrate`"},
		"an old schema to read": {`DELETE FROM goose_db_version WHERE version_id > 1`, "PAYMENTS_READ_DATABASE_URL", "run `payments migrate`"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := devtest.Database(t)
			w := newWorld(t, parts{database: database})
			direct, err := url.Parse(database.URL)
			if err != nil {
				t.Fatal(err)
			}
			if c.variable == "PAYMENTS_READ_DATABASE_URL" { // the write model is another, and fits
				w.vars["PAYMENTS_DATABASE_URL"] = devtest.Database(t).URL
			}
			server := direct.Host
			wire := newWire(t, w.address()) // where nothing listens yet
			direct.Host = wire.addr()
			if tag, err := w.db.Exec(t.Context(), c.harm); err != nil || tag.RowsAffected() == 0 {
				t.Fatal(tag, err)
			}
			vars := maps.Clone(w.vars)
			vars["PAYMENTS_ADDR"], vars["PAYMENTS_ADMIN_ADDR"], vars[c.variable] = w.address(), w.address(), direct.String()
			w.elsewhere.Store(vars["PAYMENTS_ADMIN_ADDR"], true)
			s := &service{w: w, name: "serve-away", vars: vars}
			s.start()
			await(t, readyWithin, func() string { return w.answers("http://" + vars["PAYMENTS_ADMIN_ADDR"] + "/healthz") })
			before := w.rows()
			wire.lead(server)
			if code := s.code(); code != 2 {
				t.Errorf("exit code %d", code)
			}
			log, err := os.ReadFile(s.log)
			if err != nil || !strings.Contains(string(log), c.want) {
				t.Errorf("%v; the log does not say %q:\n%s", err, c.want, log)
			}
			if after := w.rows(); strings.HasPrefix(name, "an old schema") && !maps.Equal(before, after) {
				t.Errorf("rows before %v, after %v", before, after)
			}
		})
	}
}

// fails wants the exit code of a wrong setting, and after what the service logged one sentence.
func (w *world) fails(variable, want string, vars map[string]string, args ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	_, stderr, code := run(ctx, vars, args...)
	var sentences []string
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, `{"time"`) {
			sentences = append(sentences, strings.TrimSpace(line))
		}
	}
	if len(args) == 0 || args[0] == "pay" {
		sentences = sentences[max(0, len(sentences)-1):] // above it stand the subcommands
	}
	wrong := code != 2
	if len(args) > 0 && args[0] == "audit" { // a provider without an address is away
		wrong = code != 2 && code != 3
	}
	if wrong || len(sentences) != 1 || !strings.HasPrefix(sentences[0], "payments: ") ||
		!strings.Contains(sentences[0], variable) || !strings.Contains(sentences[0], want) || strings.Contains(stderr, canary) {
		w.t.Errorf("%v with a wrong %s: exit code %d\n%s", args, variable, code, stderr)
	}
}
