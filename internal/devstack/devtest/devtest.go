// Package devtest gives each test a database of its own on a real Postgres that
// the test process starts once, and a broker that speaks Kafka's protocol, or the
// real Kafka that the environment names. It imports devstack only.
package devtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack"
)

// Migrations brings a database up as its owner and grants the service's role.
type Migrations func(ctx context.Context, ownerURL, appURL string) error

// Option of Main.
type Option func(*process)

// WithMigrations says what makes the template that every Database is a copy of.
func WithMigrations(m Migrations) Option { return func(p *process) { p.migrate = m } }

// URLs of one database: the service's role, and the owner of its tables.
type URLs struct{ URL, OwnerURL string }

type process struct {
	migrate Migrations
	once    sync.Once
	err     error
	dir     string
	server  *devstack.Postgres
}

const template = "template_payments"

// current is the one server of the test process; Main sets it before any test runs.
var current *process //nolint:gochecknoglobals // testing gives no other way from TestMain to a test

// Main runs the tests and then stops what they started.
func Main(m *testing.M, options ...Option) {
	os.Exit(Run(m, options...)) //nolint:forbidigo // it stands in for TestMain, which exits
}

// Run is Main for a caller that has checks of its own to make afterwards.
func Run(m *testing.M, options ...Option) int {
	current = &process{}
	for _, option := range options {
		option(current)
	}
	code := m.Run()
	if current.server != nil {
		if err := current.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if current.dir != "" {
		_ = os.RemoveAll(current.dir)
	}
	return code
}

func (p *process) start(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "payments-test-")
	if err != nil {
		return err
	}
	p.dir = dir
	if p.server, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: dir}); err != nil {
		return err
	}
	if err := p.server.Provision(ctx, template); err != nil {
		return err
	}
	if p.migrate == nil {
		return nil
	}
	return p.migrate(ctx, p.server.URL(devstack.OwnerRole, template), p.server.URL(devstack.ServiceRole, template))
}

func (p *process) admin(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, p.server.URL("postgres", "postgres"))
	if err != nil {
		return err
	}
	for _, s := range statements {
		if _, err = conn.Exec(ctx, s); err != nil {
			break
		}
	}
	if cerr := conn.Close(ctx); err == nil {
		err = cerr
	}
	return err
}

// Database makes a fresh, migrated database that is dropped after the test.
// Owner is a superuser's equal inside it only.
func Database(tb testing.TB) URLs {
	tb.Helper()
	p := current
	if p == nil {
		tb.Fatal("devtest.Main was not called in TestMain")
	}
	p.once.Do(func() { p.err = p.start(context.WithoutCancel(tb.Context())) })
	if p.err != nil {
		tb.Fatalf("start Postgres: %v", p.err)
	}
	name := "test_" + strings.ToLower(rand.Text()[:16])
	if err := p.admin(tb.Context(), "CREATE DATABASE "+name+" TEMPLATE "+template+" OWNER "+devstack.OwnerRole); err != nil {
		tb.Fatalf("make the test's database: %v", err)
	}
	tb.Cleanup(func() {
		if err := p.admin(context.WithoutCancel(tb.Context()), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Errorf("drop the test's database: %v", err)
		}
	})
	return URLs{URL: p.server.URL(devstack.ServiceRole, name), OwnerURL: p.server.URL(devstack.OwnerRole, name)}
}
