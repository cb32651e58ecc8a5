package devtest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"payments/internal/devstack"
)

// PgBouncer runs a pooler before the server of the URLs, in the pool mode (session,
// transaction or statement), with further lines of its configuration, and gives the URLs
// through it. The test is skipped where pgbouncer is not installed.
func PgBouncer(tb testing.TB, to URLs, mode string, lines ...string) URLs {
	tb.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		tb.Skip("SKIPPED: pgbouncer is not installed (apt-get install pgbouncer)")
	}
	port, err := devstack.FreePort(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	service, owner := parse(tb, to.URL), parse(tb, to.OwnerURL)
	// It refuses to be root, and whoever it is then has to read its files.
	dir, err := os.MkdirTemp("", "payments-pgbouncer-") //nolint:usetesting // the test's own directory is closed to others
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	var users, config strings.Builder
	for _, u := range []*url.URL{service, owner} {
		password, _ := u.User.Password()
		fmt.Fprintf(&users, "%q %q\n", u.User.Username(), password)
	}
	fmt.Fprintf(&config, `[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = plain
auth_file = %s/users.txt
pool_mode = %s
default_pool_size = 60
max_client_conn = 200
`, service.Hostname(), service.Port(), port, dir, mode)
	for _, l := range lines {
		fmt.Fprintln(&config, l)
	}
	for name, content := range map[string]string{"users.txt": users.String(), "pgbouncer.ini": config.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	args := []string{filepath.Join(dir, "pgbouncer.ini")}
	if os.Geteuid() == 0 {
		args = append([]string{"-u", "nobody"}, args...)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		tb.Fatal(err)
	}
	command := exec.CommandContext(context.WithoutCancel(tb.Context()), program, args...)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // it was killed
		_ = log.Close()
	})
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", addr)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(log.Name())
			tb.Fatalf("pgbouncer does not listen: %v\n%s", err, said)
		}
	}
	service.Host, owner.Host = addr, addr
	return URLs{URL: service.String(), OwnerURL: owner.String()}
}

func parse(tb testing.TB, text string) *url.URL {
	tb.Helper()
	u, err := url.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}
