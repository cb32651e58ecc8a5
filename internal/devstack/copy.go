package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrNoTool: the machine has a server's binaries alone, as those that are fetched.
var ErrNoTool = errors.New("is not among this machine's Postgres binaries")

// Tool is the path of a program that comes with Postgres, such as pg_dump.
func (p *Postgres) Tool(name string) (string, error) {
	if path := filepath.Join(p.bin, name); exists(path) {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s %w", name, ErrNoTool)
	}
	return path, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Run runs a program that comes with Postgres to its end.
func (p *Postgres) Run(ctx context.Context, name string, args ...string) error {
	path, err := p.Tool(name)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	c := exec.CommandContext(ctx, path, args...)
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// Backup copies the running cluster into dir, which StartPostgres then starts on. What it is
// to be there, signal says: "" a cluster that goes on from the backup, SignalStandby one that
// follows, SignalRecovery one that recovers to its settings' recovery_target.
func (p *Postgres) Backup(ctx context.Context, dir, signal string) error {
	data := filepath.Join(dir, "data")
	if err := p.Run(ctx, "pg_basebackup", "-d", p.URL("postgres", "postgres"), "-D", data, "-X", "stream", "-c", "fast"); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte(p.password), 0o600); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	return Signal(dir, signal)
}

// What a copy of a cluster is to be.
const (
	SignalStandby  = "standby.signal"
	SignalRecovery = "recovery.signal"
)

// Signal says what the stopped cluster in dir is to be at its next start.
func Signal(dir, signal string) error {
	if signal == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, "data", signal), nil, 0o600)
}

// Follow is the setting with which a standby follows the server at host and port.
func (p *Postgres) Follow(address string) (setting string, err error) {
	u, err := url.Parse("tcp://" + address)
	if err != nil {
		return "", fmt.Errorf("follow %s: %w", address, err)
	}
	return fmt.Sprintf("primary_conninfo=host=%s port=%s user=postgres password=%s", u.Hostname(), u.Port(), p.password), nil
}

// Address is host and port.
func (p *Postgres) Address() string {
	u, _ := url.Parse(p.URL("postgres", "postgres")) // it was made there
	return u.Host
}

// Execute runs statements one after another as the superuser, in the database postgres.
func (p *Postgres) Execute(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres", "postgres"))
	if err != nil {
		return err
	}
	for _, s := range statements {
		if _, err = conn.Exec(ctx, s); err != nil {
			err = fmt.Errorf("%s: %w", s, err)
			break
		}
	}
	return errors.Join(err, conn.Close(ctx))
}

// Value is the one value of a query, as text, by the superuser.
func (p *Postgres) Value(ctx context.Context, query string) (value string, err error) {
	conn, err := pgx.Connect(ctx, p.URL("postgres", "postgres"))
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, query).Scan(&value)
	return value, errors.Join(err, conn.Close(ctx))
}

// Promote ends a standby's following, and returns when it takes writes.
func (p *Postgres) Promote(ctx context.Context) error {
	value, err := p.Value(ctx, `SELECT pg_promote(true, 60)::text`)
	if err == nil && value != "true" {
		err = errors.New("it does not end its recovery")
	}
	if err != nil {
		return fmt.Errorf("promote Postgres: %w", err)
	}
	return nil
}
