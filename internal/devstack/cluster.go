package devstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Roles that Provision makes: the owner of the tables, who migrates them, and the
// service, which is neither superuser nor exempt from row-level security.
const (
	OwnerRole   = "payments_owner"
	ServiceRole = "payments_app"
)

// prepare sets what Start needs: binaries of the cluster's version, the password,
// the port, and the cluster itself.
func (p *Postgres) prepare(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(p.data, "PG_VERSION"))
	fresh := errors.Is(err, os.ErrNotExist)
	if err != nil && !fresh {
		return fmt.Errorf("read the cluster's version: %w", err)
	}
	if p.bin == "" {
		if p.bin, err = findBinaries(ctx, strings.TrimSpace(string(version)), p.cache()); err != nil {
			return err
		}
	}
	if p.password, err = keptPassword(filepath.Join(p.config.Dir, "password"), p.config.Password); err != nil {
		return err
	}
	want := p.config.Port
	if want == 0 {
		want = p.port // a restart is on the same port or fails
	}
	if p.port, err = choosePort(ctx, filepath.Join(p.config.Dir, "port"), want); err != nil {
		return err
	}
	if fresh {
		return p.init(ctx)
	}
	return p.account.own(p.data)
}

// init makes the cluster beside its place and moves it there when it is whole, so
// that a crash leaves none or a good one.
func (p *Postgres) init(ctx context.Context) error {
	making := p.data + ".new"
	if err := os.RemoveAll(making); err != nil {
		return fmt.Errorf("remove an unfinished cluster: %w", err)
	}
	if err := os.Mkdir(making, 0o700); err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	secret := filepath.Join(p.config.Dir, "initdb.password")
	if err := os.WriteFile(secret, []byte(p.password), 0o600); err != nil {
		return fmt.Errorf("hand the password to initdb: %w", err)
	}
	defer os.Remove(secret)
	if err := errors.Join(p.account.own(making), p.account.own(secret)); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "-D", making, "-U", "postgres",
		"--auth=scram-sha-256", "--pwfile="+secret, "--encoding=UTF8", "--locale=C.UTF-8")
	if !p.config.Durable {
		c.Args = append(c.Args, "--no-sync")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr, c.Dir = &out, &out, "/"
	p.account.apply(c)
	done, err := spawn(c)
	if err != nil {
		return fmt.Errorf("start initdb: %w", err)
	}
	<-done
	if !c.ProcessState.Success() {
		return fmt.Errorf("initdb %s: %s: %s", p.account, c.ProcessState, strings.TrimSpace(out.String()))
	}
	if err := os.Rename(making, p.data); err != nil {
		return fmt.Errorf("move the new cluster to its place: %w", err)
	}
	return nil
}

// Provision makes the two roles and a database of the owner's, what of it is missing.
func (p *Postgres) Provision(ctx context.Context, database string) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres", "postgres"))
	if err != nil {
		return fmt.Errorf("provision %s: %w", database, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	secret := "'" + strings.ReplaceAll(p.password, "'", "''") + "'"
	for _, s := range []struct{ exists, name, create string }{
		{"SELECT 1 FROM pg_roles WHERE rolname = $1", OwnerRole, "CREATE ROLE " + OwnerRole + " LOGIN BYPASSRLS PASSWORD " + secret},
		// Made before the owner had to see every merchant's rows.
		{"SELECT 1 FROM pg_roles WHERE rolname = $1 AND rolbypassrls", OwnerRole, "ALTER ROLE " + OwnerRole + " BYPASSRLS"},
		{"SELECT 1 FROM pg_roles WHERE rolname = $1", ServiceRole, "CREATE ROLE " + ServiceRole + " LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD " + secret},
		// To see whose transaction holds back cleaning and retention.
		{"SELECT 1 FROM pg_auth_members WHERE member = $1::text::regrole AND roleid = 'pg_read_all_stats'::regrole", ServiceRole, "GRANT pg_read_all_stats TO " + ServiceRole},
		{"SELECT 1 FROM pg_database WHERE datname = $1", database, "CREATE DATABASE " + pgx.Identifier{database}.Sanitize() + " OWNER " + OwnerRole},
	} {
		found, err := conn.Exec(ctx, s.exists, s.name)
		if err == nil && found.RowsAffected() == 0 {
			_, err = conn.Exec(ctx, s.create)
		}
		if err != nil {
			return fmt.Errorf("provision %s: %w", s.name, err)
		}
	}
	return nil
}

// keptPassword is the one in the file, which is made with the given or a generated
// one when it is not there. The cluster knows no other.
func keptPassword(path, given string) (string, error) {
	kept, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if given == "" {
			given = rand.Text()
		}
		if err := os.WriteFile(path, []byte(given), 0o600); err != nil {
			return "", fmt.Errorf("keep the password of Postgres: %w", err)
		}
		return given, nil
	case err != nil:
		return "", fmt.Errorf("read the password of Postgres: %w", err)
	case given != "" && given != string(kept):
		return "", fmt.Errorf("start Postgres: the cluster in %s was made with another password than the given one", filepath.Dir(path))
	}
	return string(kept), nil
}

// endLeftover ends a server of the data directory whose starter is gone: the
// directory's lock is ours. It also removes a pid file that names nobody or, after
// the numbers began again, somebody else, since Postgres would refuse to start.
func endLeftover(ctx context.Context, data string, log *slog.Logger) error {
	file := filepath.Join(data, "postmaster.pid")
	content, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the pid of an earlier Postgres: %w", err)
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(line)) // 0 names nobody
	if running := serverProcesses(data); len(running) > 0 {
		log.WarnContext(ctx, "ending a Postgres that an earlier run left behind", "pid", pid, "processes", len(running))
		if err := endAll(data, syscall.SIGINT, stopWithin); err != nil {
			if err := endAll(data, syscall.SIGKILL, stopWithin); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the pid file of an earlier Postgres: %w", err)
	}
	return nil
}

// endAll sends the signal once to each process of the server, SIGINT being Postgres'
// word for a fast but orderly end, and waits until none is left.
func endAll(data string, sig syscall.Signal, within time.Duration) error {
	deadline := time.Now().Add(within)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	sent := map[int]bool{}
	for {
		running := serverProcesses(data)
		if len(running) == 0 {
			return nil
		}
		for _, pid := range running {
			if !sent[pid] {
				sent[pid] = true
				if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("end process %d of Postgres: %w", pid, err)
				}
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of the Postgres in %s did not end within %s", running, data, within)
		}
		<-tick.C
	}
}

// tail is the last kilobyte of a log.
func tail(path string) []byte {
	content, _ := os.ReadFile(path) // the error that it illustrates is told anyway
	return bytes.TrimSpace(content[max(0, len(content)-1024):])
}
