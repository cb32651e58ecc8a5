package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"payments/internal/config"
	"payments/internal/devstack"
)

const (
	readyWithin = 60 * time.Second
	envFile     = "demo.env"
)

func (e environment) demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Usage: "run everything on this machine, with state under .data",
		Description: about(`Starts Postgres, a Kafka broker, the provider's simulator and the service with every role, and prints the
address, the keys and a first payment to paste. Ctrl-C stops; a second start goes on from there.
PAYMENTS_DATA_DIR is another directory for the state.`, "payments demo", "set -a; . .data/demo.env; set +a; payments audit"),
		Action: alone(e.demo),
	}
}

// demo runs Postgres, a broker, the simulator and the service on this machine.
// The latter two are processes of their own, so that they can be killed and seen
// to recover: a dead one is started again.
func (e environment) demo(ctx context.Context, _ *cli.Command) error {
	dir := e.value("PAYMENTS_DATA_DIR")
	if dir == "" {
		dir = ".data"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return usagef("PAYMENTS_DATA_DIR: %w", err)
	}
	if strings.ContainsAny(dir, "\r\n") {
		return usagef("PAYMENTS_DATA_DIR: the directory %q has a line break in its name, which Postgres cannot use", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return usagef("PAYMENTS_DATA_DIR: %w", err)
	}
	// Only the demo that owns the directory may change what is in it.
	lock, err := devstack.Lock(dir)
	if err != nil {
		return fmt.Errorf("PAYMENTS_DATA_DIR: %w", err)
	}
	defer lock.Close()
	if err := os.Remove(filepath.Join(dir, envFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d := &demonstration{environment: e, dir: dir, log: slog.New(slog.NewTextHandler(e.stderr, nil)), vars: map[string]string{}, ledger: filepath.Join(dir, "simulator.db")}
	return d.run(ctx)
}

type demonstration struct {
	environment
	dir  string
	log  *slog.Logger
	vars map[string]string // demo.env
	// ledger is the simulator's file. Its path may need a shell's quotes, so it is not among vars.
	ledger string
}

func (d *demonstration) run(ctx context.Context) (err error) {
	if err := d.keepSecrets(); err != nil {
		return err
	}
	db, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir: filepath.Join(d.dir, "postgres"), Durable: true, Settings: devstack.ServiceSettings(), Log: d.log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Stop()) }()
	if err := db.Provision(ctx, "payments"); err != nil {
		return err
	}
	// For people with psql: without a tenant, row-level security shows them no row.
	d.vars["PAYMENTS_DATABASE_URL"] = db.URL("payments_app", "payments") + "?options=-c%20payments.merchant%3D*"
	// The other URL has room for one parameter: a shell that reads the file would take & for its own.
	d.vars["PAYMENTS_MIGRATE_DATABASE_URL"] = db.URL("payments_owner", "payments") + "?sslmode=disable"
	kafka, err := devstack.StartBroker(ctx, devstack.BrokerConfig{Dir: filepath.Join(d.dir, "broker"), Partitions: 6, Sync: true, Log: d.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kafka.Stop()) }()
	d.vars["PAYMENTS_KAFKA_BROKERS"], d.vars["PAYMENTS_KAFKA_FENCING"] = kafka.Addr(), "on"
	if err := d.addresses(ctx); err != nil {
		return err
	}
	if err := migrate(ctx, d.child()); err != nil {
		return err
	}
	if _, err := d.child().seedDatabase(ctx); err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, name := range []string{"simulator", "serve"} {
		group.Go(func() error { return d.keepRunning(gctx, name) })
	}
	group.Go(func() error { return d.keepPostgres(gctx, db) })
	group.Go(func() error { return d.announce(gctx) })
	return group.Wait()
}

// keepSecrets reads the secrets of earlier starts and makes those that are not
// there: all of them at the first, and the one that a newer program needs later.
func (d *demonstration) keepSecrets() error {
	path := filepath.Join(d.dir, "secrets.env")
	kept, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(kept)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			d.vars[name] = value
		}
	}
	made := false
	for _, secret := range demoSecrets {
		if d.vars[secret.name] != "" {
			continue
		}
		if d.vars[secret.name], err = secret.fresh(); err != nil {
			return err
		}
		made = true
	}
	if !made {
		return nil
	}
	return writeEnv(path, d.vars)
}

// writeEnv writes NAME=value lines for the owner's eyes, all or nothing.
func writeEnv(path string, vars map[string]string) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		fmt.Fprintf(&b, "%s=%s\n", name, vars[name])
	}
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// addresses takes the contract's ports, or free ones where they are taken, unless others
// were asked for by name.
func (d *demonstration) addresses(ctx context.Context) error {
	for _, a := range []struct {
		variable string
		port     int
		url      string
	}{
		{"PAYMENTS_ADDR", 8080, "PAYMENTS_URL"},
		{"PAYMENTS_ADMIN_ADDR", 8081, "PAYMENTS_ADMIN_URL"},
		{"PAYMENTS_SIMULATOR_ADDR", 8082, "PAYMENTS_SIMULATOR_URL"},
	} {
		addr := d.value(a.variable)
		if addr == "" {
			port := a.port
			if err := devstack.ReservePort(ctx, port); err != nil {
				if port, err = devstack.FreePort(ctx); err != nil {
					return fmt.Errorf("%s: %w", a.variable, err)
				}
			}
			addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("%s: %w", a.variable, err)
		}
		d.vars[a.variable] = l.Addr().String()
		d.vars[a.url] = "http://" + l.Addr().String()
		if err := l.Close(); err != nil {
			return err
		}
	}
	d.vars["PAYMENTS_PROVIDER_URL"] = d.vars["PAYMENTS_SIMULATOR_URL"]
	d.vars["PAYMENTS_SIMULATOR_WEBHOOK_URL"] = d.vars["PAYMENTS_URL"] + "/v1/provider/webhooks/simulator"
	d.vars["PAYMENTS_PROVIDER_WEBHOOK_SECRETS"] = d.vars["PAYMENTS_SIMULATOR_WEBHOOK_SECRET"]
	d.vars["PAYMENTS_WEBHOOKS_ALLOW_PRIVATE"] = "true"
	d.vars["PAYMENTS_PROVIDER_TIMEOUT"], d.vars["PAYMENTS_PROVIDER_HORIZON"] = "2s", "5s"
	return nil
}

// child is the environment of a subcommand inside the demo.
func (d *demonstration) child() environment {
	return environment{lookup: func(name string) (string, bool) { v, ok := d.vars[name]; return v, ok }, stdout: d.stderr, stderr: d.stderr}
}

// keepRunning runs a subcommand as a process and starts it again when it dies.
func (d *demonstration) keepRunning(ctx context.Context, name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(d.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	vars := d.processEnvironment(os.Environ())
	runtime.LockOSThread() // a child ends with the thread that started it
	for ctx.Err() == nil {
		began := time.Now()
		child := exec.CommandContext(ctx, self, name)
		child.Env, child.Stdout, child.Stderr = vars, out, out
		child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
		child.WaitDelay = 15 * time.Second
		endWithUs(child)
		err := child.Run()
		if ctx.Err() != nil {
			return nil
		}
		d.log.WarnContext(ctx, "process died and is started again", "process", name, "error", err, "log", out.Name())
		if time.Since(began) < time.Second {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// keepPostgres starts Postgres again when it dies, on the same port and with its data.
func (d *demonstration) keepPostgres(ctx context.Context, db *devstack.Postgres) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-db.Done():
		}
		select {
		case <-ctx.Done(): // a start that is broken off ends the server, too
			return nil
		default:
		}
		d.log.WarnContext(ctx, "Postgres died and is started again", "log", filepath.Join(d.dir, "postgres", "log"))
		for {
			err := db.Restart(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			d.log.ErrorContext(ctx, "Postgres cannot be started again; the next try is in a second", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
}

// processEnvironment is the caller's environment without libpq's variables, in which the demo's variables replace the
// caller's of the same name, and the files that would give them.
func (d *demonstration) processEnvironment(caller []string) []string {
	own := maps.Clone(d.vars)
	own["PAYMENTS_SIMULATOR_DATA"] = d.ledger
	vars := slices.DeleteFunc(devstack.WithoutLibpq(caller), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		_, replaced := own[strings.TrimSuffix(name, config.FileSuffix)]
		return replaced
	})
	for name, value := range own {
		vars = append(vars, name+"="+value)
	}
	return vars
}

// announce waits until the service is ready, writes demo.env and says what to do.
func (d *demonstration) announce(ctx context.Context) error {
	deadline, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !d.ready(deadline) {
		select {
		case <-ctx.Done():
			return nil
		case <-deadline.Done():
			return fmt.Errorf("the service did not get ready within %v: see %s", readyWithin, filepath.Join(d.dir, "serve.log"))
		case <-tick.C:
		}
	}
	path := filepath.Join(d.dir, envFile)
	if err := writeEnv(path, d.vars); err != nil {
		return err
	}
	_, err := fmt.Fprintf(d.stdout, `
Ready. The API is at %[1]s (how to use it: %[1]s/docs), metrics and health at %[2]s, the bank's simulator at %[3]s.
Everything a client or a subcommand needs is in %[4]s; Ctrl-C stops, a second start goes on from here.

  set -a; . %[4]s; set +a
  %[5]s

Merchant's key: %[6]s
Operator's key: %[7]s
`, d.vars["PAYMENTS_URL"], d.vars["PAYMENTS_ADMIN_URL"], d.vars["PAYMENTS_SIMULATOR_URL"], shellWord(path),
		firstPayment, d.vars["PAYMENTS_API_KEY"], d.vars["PAYMENTS_OPERATOR_KEY"])
	return err
}

func (d *demonstration) ready(ctx context.Context) bool {
	for _, url := range []string{d.vars["PAYMENTS_ADMIN_URL"] + "/readyz", d.vars["PAYMENTS_SIMULATOR_URL"] + "/healthz"} {
		if answers(ctx, url) != nil {
			return false
		}
	}
	return true
}

// shellWord is the text as one word of a POSIX shell.
func shellWord(text string) string {
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
