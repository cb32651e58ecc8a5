// Package test holds what no part can show alone. It builds the program, starts
// its processes with Postgres, a broker and the simulator, speaks to them by HTTP,
// signals and the environment, and kills them. Every test that breaks something
// ends with `payments audit -settled`.
//
// Of the project it imports devstack, the client that merchants use, and what holds
// answers against the OpenAPI document: what it wants to know it asks the program,
// the database or the simulator's ledger. Every answer of the API that comes to its
// HTTP client is held against the document.
package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"payments/internal/devstack/devtest"
)

// program is the built binary.
var program string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "payments-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if program, err = build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := devtest.Run(m, devtest.WithMigrations(migrate))
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// build has the race detector on when these tests have.
func build(dir string) (string, error) {
	path := filepath.Join(dir, "payments")
	args := []string{"build", "-o", path}
	if raced {
		args = append(args, "-race")
	}
	c := exec.Command("go", append(args, "./cmd/payments")...)
	c.Dir = ".."
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
}

func migrate(ctx context.Context, ownerURL, appURL string) error {
	_, stderr, code := run(ctx, map[string]string{
		"PAYMENTS_DATABASE_URL": appURL, "PAYMENTS_MIGRATE_DATABASE_URL": ownerURL,
	}, "migrate")
	if code != 0 {
		return errors.New(stderr)
	}
	return nil
}

// run waits for a subcommand that ends by itself. A code of -1 means that it was
// killed, or did not start.
func run(ctx context.Context, vars map[string]string, args ...string) (stdout, stderr string, code int) {
	var out, errs strings.Builder
	c := exec.CommandContext(ctx, program, args...)
	c.Env, c.Stdout, c.Stderr = environ(vars), &out, &errs
	err := c.Run()
	if code = c.ProcessState.ExitCode(); err != nil && code == -1 {
		fmt.Fprintln(&errs, err)
	}
	return out.String(), errs.String(), code
}

// environ has nothing of the surroundings but what any program needs: a variable
// of the service that somebody has set must not decide a test.
func environ(vars map[string]string) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "PAYMENTS_POSTGRES_BIN"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for name, v := range vars {
		env = append(env, name+"="+v)
	}
	return env
}
