package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	startWithin = 60 * time.Second // recovery after a crash is part of it
	stopWithin  = 20 * time.Second
	pollEvery   = 25 * time.Millisecond
)

// PostgresConfig is complete with Dir alone.
type PostgresConfig struct {
	// Dir holds the cluster, its password, its port and its log. A second start on
	// it goes on with its data.
	Dir string
	// Port 0 is the one of the last start when that is free, else any free one.
	Port int
	// Password of every role. Empty is the one kept in Dir, else a generated one.
	Password string
	// Durable survives a crash of the machine. Without it only a crash of the
	// processes is survived: fsync and full_page_writes are off.
	Durable bool
	// Settings of the server, each name=value as in postgresql.conf. They come after
	// devstack's own.
	Settings []string
	// Cache keeps binaries that had to be fetched; empty is the user's cache directory.
	Cache string
	Log   *slog.Logger
}

// Postgres is a server on 127.0.0.1. Its methods are for one goroutine at a time.
type Postgres struct {
	config   PostgresConfig
	account  account
	bin      string
	data     string
	password string
	port     int
	lock     io.Closer
	command  *exec.Cmd
	done     chan struct{}
}

// StartPostgres makes the cluster in Dir unless there is one, and starts it. The
// server ends with this process, however that ends. Postgres refuses root: there
// it runs in a user namespace that maps root to another uid, or, where the kernel
// refuses that, as the user postgres or nobody.
//
// The variables that libpq reads (PGSSLMODE, PGSERVICE, PGOPTIONS …) are taken out of this process's
// environment: they are about the caller's own servers, and would decide about each session with this one.
func StartPostgres(ctx context.Context, config PostgresConfig) (*Postgres, error) {
	if err := forgetLibpq(); err != nil {
		return nil, err
	}
	a, err := chooseAccount(ctx)
	if err != nil {
		return nil, err
	}
	return startPostgres(ctx, config, a)
}

func startPostgres(ctx context.Context, config PostgresConfig, a account) (*Postgres, error) {
	if config.Dir == "" {
		return nil, errors.New("start Postgres: no directory was given")
	}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the server's user passes through it; what it holds is closed
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	config.Dir = dir
	p := &Postgres{config: config, account: a, data: filepath.Join(dir, "data")}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Start after a Stop or a Kill continues on the same port with the same data.
func (p *Postgres) Start(ctx context.Context) error {
	if p.command != nil {
		return errors.New("start Postgres: it was started already")
	}
	lock, err := Lock(p.config.Dir)
	if err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	p.lock = lock
	if err := p.start(ctx); err != nil {
		return errors.Join(err, p.unlock())
	}
	return nil
}

func (p *Postgres) start(ctx context.Context) error {
	if err := endLeftover(ctx, p.data, p.config.Log); err != nil {
		return err
	}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of Postgres: %w", err)
	}
	c := exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data, "-p", strconv.Itoa(p.port), //nolint:noctx // outlives the start's context
		"-h", "127.0.0.1", "-k", "", "-c", "max_connections=200")
	if !p.config.Durable {
		c.Args = append(c.Args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	for _, s := range p.config.Settings {
		c.Args = append(c.Args, "-c", s)
	}
	c.Stdout, c.Stderr, c.Dir = log, log, "/"
	p.account.apply(c)
	began := time.Now()
	done, err := spawn(c)
	if err := errors.Join(err, log.Close()); err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	p.command, p.done = c, done
	if err := p.ready(ctx); err != nil {
		return errors.Join(err, p.Stop())
	}
	p.config.Log.InfoContext(ctx, "Postgres is ready", "port", p.port, "binaries", p.bin, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (p *Postgres) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, p.URL("postgres", "postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-tick.C:
			continue
		case <-p.done:
		case <-ctx.Done():
		}
		return fmt.Errorf("postgres did not get ready: %w; the end of %s says: %s", err, p.logPath(), tail(p.logPath()))
	}
}

// Port that Start uses again.
func (p *Postgres) Port() int { return p.port }

// Done is closed when the server that was last started has ended.
func (p *Postgres) Done() <-chan struct{} { return p.done }

// URL of a database for a role; every role made by devstack has the one password.
func (p *Postgres) URL(role, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(role, p.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)), Path: database,
	}
	return u.String()
}

// Stop ends every session, writes everything down and waits for the server's end.
// A stopped server stays as it is.
func (p *Postgres) Stop() error {
	if p.command == nil {
		return nil
	}
	if err := p.command.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop Postgres: %w", err)
	}
	select {
	case <-p.done:
		p.command = nil
		return p.unlock()
	case <-time.After(stopWithin):
		return errors.Join(fmt.Errorf("postgres did not stop within %s and was killed; see %s", stopWithin, p.logPath()), p.Kill())
	}
}

// Restart starts a server that has ended by itself, such as one that was killed from outside.
func (p *Postgres) Restart(ctx context.Context) error {
	if err := p.Kill(); err != nil { // what its end left behind
		return err
	}
	return p.Start(ctx)
}

// Kill is a crash: every process of the server gets SIGKILL. It waits for their end.
func (p *Postgres) Kill() error {
	if p.command == nil {
		return nil
	}
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill Postgres: %w", err)
	}
	<-p.done
	p.command = nil
	return errors.Join(endAll(p.data, syscall.SIGKILL, stopWithin), p.unlock())
}

func (p *Postgres) unlock() error {
	if err := p.lock.Close(); err != nil {
		return fmt.Errorf("release the directory of Postgres: %w", err)
	}
	return nil
}

func (p *Postgres) logPath() string { return filepath.Join(p.config.Dir, "log") }
