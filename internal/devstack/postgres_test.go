package devstack

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func startForTest(t *testing.T, config PostgresConfig) *Postgres {
	t.Helper()
	p, err := StartPostgres(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func execSQL(t *testing.T, p *Postgres, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, p *Postgres, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var v string
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestASecondStartGoesOn(t *testing.T) {
	config := PostgresConfig{Dir: filepath.Join(t.TempDir(), "new"), Durable: true}
	p := startForTest(t, config)
	execSQL(t, p, "CREATE TABLE kept AS SELECT 'yes' AS v")
	if got := value(t, p, "SELECT current_setting('fsync') || current_setting('full_page_writes')"); got != "onon" {
		t.Errorf("a durable server has fsync and full_page_writes %s", got)
	}
	info, err := os.Stat(filepath.Join(config.Dir, "password"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the password is kept as %v, %v", info, err)
	}
	if _, err := StartPostgres(t.Context(), config); err == nil || !strings.Contains(err.Error(), "another running process uses") {
		t.Errorf("a second server on the directory: %v", err)
	}
	url := p.URL("postgres", "postgres")
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}

	again := startForTest(t, config)
	if got := value(t, again, "SELECT v FROM kept"); got != "yes" {
		t.Errorf("kept = %s", got)
	}
	if again.URL("postgres", "postgres") != url {
		t.Errorf("the address moved from port %d to %d", p.Port(), again.Port())
	}
	if err := again.Stop(); err != nil {
		t.Fatal(err)
	}

	config.Password = "another"
	if _, err := StartPostgres(t.Context(), config); err == nil || !strings.Contains(err.Error(), "another password") {
		t.Errorf("a start with another password: %v", err)
	}
}

func TestAKillLosesNoCommit(t *testing.T) {
	p := startForTest(t, PostgresConfig{Dir: t.TempDir()})
	if err := p.Provision(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	execSQL(t, p, "CREATE TABLE kept AS SELECT 'yes' AS v")
	open, err := pgx.Connect(t.Context(), p.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close(t.Context())
	port := p.Port()
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if left := serverProcesses(p.data); len(left) != 0 {
		t.Errorf("processes %v outlived the kill", left)
	}
	if err := open.Ping(t.Context()); err == nil {
		t.Error("a session outlived the kill")
	}
	if err := p.Kill(); err != nil {
		t.Errorf("a second kill: %v", err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if said, err := os.ReadFile(p.logPath()); !strings.Contains(string(said), "was not properly shut down") {
		t.Errorf("the kill was no crash to Postgres: %v", err)
	}
	if got := value(t, p, "SELECT v FROM kept"); got != "yes" || p.Port() != port {
		t.Errorf("after the kill: %q on port %d, want yes on %d", got, p.Port(), port)
	}
	if err := p.Provision(t.Context(), "shop"); err != nil {
		t.Errorf("provisioning again: %v", err)
	}
	owner, err := pgx.Connect(t.Context(), p.URL(OwnerRole, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	if _, err := owner.Exec(t.Context(), "CREATE TABLE mine ()"); err != nil {
		t.Errorf("the owner cannot make a table: %v", err)
	}
}

// A parent that gets SIGKILL takes the server with it, while its other threads come and go.
func TestNoOrphanOutlivesItsParent(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "postgres://") {
		t.Fatalf("the child said %q, %v", line, err)
	}
	data := filepath.Join(dir, "data")
	if len(serverProcesses(data)) == 0 {
		t.Fatal("the child's server is not seen running")
	}
	if err := errors.Join(child.Process.Kill(), child.Wait()); err == nil {
		t.Fatal("the child ended by itself")
	}
	eventually(t, "the orphan ended", func() bool { return len(serverProcesses(data)) == 0 })
	p := startForTest(t, PostgresConfig{Dir: dir})
	if got := value(t, p, "SELECT 'up'"); got != "up" {
		t.Error(got)
	}
}

// A server that nobody ends with its parent is ended by the next start.
func TestALeftoverIsEndedFirst(t *testing.T) {
	dir := t.TempDir()
	p := startForTest(t, PostgresConfig{Dir: dir})
	execSQL(t, p, "CREATE TABLE kept AS SELECT 'yes' AS v")
	if err := p.lock.Close(); err != nil { // what the kernel does when the starter dies
		t.Fatal(err)
	}
	next := startForTest(t, PostgresConfig{Dir: dir})
	<-p.Done()
	p.command = nil
	if got := value(t, next, "SELECT v FROM kept"); got != "yes" {
		t.Errorf("kept = %s", got)
	}
}

// After a reboot the number in the pid file is somebody else's, who must not be harmed.
func TestAStalePidFileIsHarmless(t *testing.T) {
	dir := t.TempDir()
	p := startForTest(t, PostgresConfig{Dir: dir})
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(other.Process.Pid)
	if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(pid+"\n"+filepath.Join(dir, "data")+"\n0\n5432\n\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.Process.Kill()); err != nil {
		t.Errorf("the other process was ended: %v", err)
	}
	_ = other.Wait()
}

// Where user namespaces are refused, root starts it as another user, and data made
// in the one way is taken over in the other.
func TestRootWithoutNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "devstack-") //nolint:usetesting // t.TempDir lies in a directory that other users cannot pass
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	other, err := otherUser()
	if err != nil {
		t.Fatal(err)
	}
	p, err := startPostgres(t.Context(), PostgresConfig{Dir: dir}, other)
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, p, "CREATE TABLE kept AS SELECT 'yes' AS v")
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	usual := startForTest(t, PostgresConfig{Dir: dir})
	if got := value(t, usual, "SELECT v FROM kept"); got != "yes" {
		t.Errorf("kept = %s", got)
	}
	if err := usual.Stop(); err != nil {
		t.Fatal(err)
	}
	if p, err = startPostgres(t.Context(), PostgresConfig{Dir: dir}, other); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}
