package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The variables of libpq in the caller's shell are about the caller's own servers.
func TestTheDemosPostgresIsStartedAgainAndKnowsNoLibpq(t *testing.T) {
	for name, value := range map[string]string{
		"PGSSLMODE": "require", "PGSERVICE": "nobodys", "PGOPTIONS": "-c nothing=1", "PGPORT": "1", "PGDATA": "/nowhere", "PGSSLROOTCERT": "/nowhere",
		"PGTARGETSESSIONATTRS": "standby",
	} {
		t.Setenv(name, value)
	}
	dir, log := t.TempDir(), &lines{}
	db, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: filepath.Join(dir, "postgres")})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Provision(t.Context(), "payments"); err != nil {
		t.Fatal(err)
	}
	url := db.URL("payments_app", "payments") // its port stays
	d := &demonstration{dir: dir, log: slog.New(slog.NewTextHandler(log, nil)), vars: map[string]string{}}
	for _, variable := range d.processEnvironment([]string{"PGSSLMODE=require", "PGSERVICE=nobodys", "PATH=/bin"}) {
		if strings.HasPrefix(variable, "PG") {
			t.Errorf("the demo's processes have %s", variable)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.keepPostgres(ctx, db) }()
	for range 2 {
		was := postmaster(t, dir)
		if err := syscall.Kill(was, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			conn, err := pgx.Connect(deadline, url)
			if err == nil {
				_ = conn.Close(deadline)
				if now := postmaster(t, dir); now != was {
					break
				}
			}
			select {
			case <-tick.C:
			case <-deadline.Done():
				t.Fatalf("Postgres is not back: %v\n%s", errors.Join(err, deadline.Err()), log)
			}
		}
		cancel()
	}
	stop()
	if err := errors.Join(<-ended, db.Stop()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "Postgres died and is started again"); n == 0 { // killed while it was being started again, it is said once
		t.Errorf("it is said %d times:\n%s", n, log)
	}
}

// postmaster is the process of the server; 0 while there is none.
func postmaster(t *testing.T, dir string) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "postgres", "data", "postmaster.pid"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, _ := strconv.Atoi(line) // 0 is none
	return pid
}
