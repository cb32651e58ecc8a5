package scenario

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"payments/internal/devstack"
)

//go:embed ceiling.sql
var ceilingSQL string

// bySets is how many payments ceiling.sql writes in one run.
const bySets = 100

// ceiling is what Postgres alone takes for the rows of a payment, written by sets.
func ceiling(ctx context.Context, r *Runner) (Values, error) {
	pgbench, err := findPgbench()
	if err != nil {
		return nil, err
	}
	t, err := r.open(ctx, setup{})
	if err != nil {
		return nil, err
	}
	v, err := t.ceiling(ctx, r, pgbench)
	err = errors.Join(err, t.close(context.WithoutCancel(ctx)))
	return v, err // nothing to audit: these rows are no payments
}

func (t *trial) ceiling(ctx context.Context, r *Runner, pgbench string) (Values, error) {
	script := filepath.Join(r.Dir, "ceiling.sql")
	if err := os.WriteFile(script, []byte(ceilingSQL), 0o600); err != nil {
		return nil, err
	}
	if err := t.StopServices(); err != nil {
		return nil, err
	}
	if err := t.database.Exec(ctx, `CREATE SEQUENCE proto_seq; GRANT USAGE ON proto_seq TO `+devstack.ServiceRole+`; ANALYZE`); err != nil {
		return nil, err
	}
	seconds := int(r.short(6*time.Second, 30*time.Second).Seconds())
	url := r.running.URL(devstack.ServiceRole, t.Database) + "?options=-c%20payments.merchant%3D*"
	none := func() int64 { return 0 }
	before, err := t.snapshot(ctx, true, none)
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, pgbench, url, "-n", "-M", "simple", "-f", script, "-D", "merchant="+t.Merchants[0].ID, //nolint:gosec // pgbench
		"-c", "2", "-T", strconv.Itoa(seconds))
	said, err := c.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("pgbench: %w: %s", err, said[max(0, len(said)-500):])
	}
	after, err := t.snapshot(ctx, false, none)
	if err != nil {
		return nil, err
	}
	done := regexp.MustCompile(`number of transactions actually processed: (\d+)`).FindSubmatch(said)
	if done == nil {
		return nil, fmt.Errorf("pgbench said: %s", said)
	}
	runs, err := strconv.ParseInt(string(done[1]), 10, 64)
	if err != nil {
		return nil, err
	}
	after.done = runs * bySets
	v, err := t.cost(ctx, before, after)
	if err != nil {
		return nil, err
	}
	for _, none := range []string{"cpu_service", "cpu_simulator", "cpu_broker", "cpu_load", "core_service"} {
		delete(v, none)
	}
	v["cpu_sum"], v["core_sum"], v["concurrency"] = v["cpu_postgres"], v["core_postgres"], 2
	return v, nil
}

// findPgbench looks beside the servers of Debian's packages, too, whose programs are not all in PATH.
func findPgbench() (string, error) {
	if path, err := exec.LookPath("pgbench"); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if err != nil || len(found) == 0 {
		return "", errors.New("pgbench is not here: install Postgres' contrib package")
	}
	return slices.Max(found), nil
}
