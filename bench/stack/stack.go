package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"payments/internal/devstack"
)

// Config of a stack. Program is the built binary of the service.
type Config struct {
	Program string
	// Settings of Postgres after those of `payments demo`, each name=value.
	Settings []string
	// Volatile turns fsync off. Times then mean nothing, but counts do.
	Volatile bool
	// Brokers of a Kafka that is there already; empty: the embedded broker in a process of its own.
	Brokers string
}

// Stack is a Postgres and a broker that installations of the service and its peers share.
type Stack struct {
	Config
	dir      string
	postgres *devstack.Postgres
	broker   *Process
	made     int
}

// Start makes a stack in a temporary directory.
func Start(ctx context.Context, c Config) (*Stack, error) {
	dir, err := os.MkdirTemp("", "payments-bench-")
	if err != nil {
		return nil, err
	}
	s := &Stack{Config: c, dir: dir}
	if s.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir: filepath.Join(dir, "postgres"), Durable: !c.Volatile, Settings: append(devstack.ServiceSettings(), c.Settings...), Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if c.Brokers == "" {
		err = s.startBroker(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Stop ends everything and removes its data.
func (s *Stack) Stop() error {
	var err error
	if s.broker != nil {
		err = s.broker.Stop()
	}
	return errors.Join(err, s.postgres.Stop(), os.RemoveAll(s.dir))
}

// BrokerCommand is the name of this program's subcommand that serves as the broker.
const BrokerCommand = "broker"

func (s *Stack) startBroker(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	port, err := devstack.FreePort(ctx)
	if err != nil {
		return err
	}
	admin, err := address(ctx)
	if err != nil {
		return err
	}
	s.Brokers = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	sync := "on"
	if s.Volatile {
		sync = "off"
	}
	s.broker, err = start(s.dir, "broker", self, map[string]string{}, BrokerCommand, filepath.Join(s.dir, "broker"), strconv.Itoa(port), admin, sync)
	if err != nil {
		return err
	}
	return s.broker.ready(ctx, "http://"+admin+"/healthz")
}

func address(ctx context.Context) (string, error) {
	port, err := devstack.FreePort(ctx)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// Database makes a fresh one, owned by devstack.OwnerRole, and gives its name.
func (s *Stack) Database(ctx context.Context) (string, error) {
	s.made++
	name := fmt.Sprintf("bench_%d", s.made)
	return name, s.postgres.Provision(ctx, name)
}

// URL of a database for a role: devstack.OwnerRole, devstack.ServiceRole or postgres.
func (s *Stack) URL(role, database string) string { return s.postgres.URL(role, database) }

// PIDs of what the stack itself runs, by name.
func (s *Stack) PIDs() (map[string]int, error) {
	content, err := os.ReadFile(filepath.Join(s.dir, "postgres", "data", "postmaster.pid"))
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return nil, fmt.Errorf("read Postgres' pid: %w", err)
	}
	pids := map[string]int{"postgres": pid}
	if s.broker != nil {
		pids["broker"] = s.broker.PID()
	}
	return pids, nil
}
