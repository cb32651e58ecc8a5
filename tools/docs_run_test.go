package tools

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var docsPage = flag.String("docs-page", "", "run only the shell blocks of pages whose path has this in it, after README.md and docs/walk.md")

const (
	readyWithin = 2 * time.Minute
	blockWithin = 2 * time.Minute
)

// Every shell block of README.md and docs, pasted into a terminal beside a fresh demo: by an
// interactive shell, in which comments, history and globs are those of a person's. Each shell has a
// demo of its own, since a second run of a page repeats the payments of the first.
func TestExamplesPrintWhatThePagesSay(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two demos")
	}
	t.Parallel()
	all := runnable(t)
	binary := buildPayments(t)
	for _, shell := range [][]string{
		{"bash", "--norc", "--noprofile", "-i", "-s"},
		{"zsh", "-f", "-i", "-s"},
	} {
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			runtime.LockOSThread() // see endWithUs; never unlocked
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skipf("%s is not installed", shell[0])
			}
			terminal := startDemo(t, binary)
			terminal.shell = shell
			for _, b := range all {
				if *docsPage == "" || b.page == "README.md" || b.page == "docs/walk.md" || strings.Contains(b.page, *docsPage) {
					terminal.paste(t, b)
				}
			}
		})
	}
}

func buildPayments(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "payments")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/payments")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// terminal is a person's, in the directory in which `make demo` runs.
type terminal struct {
	shell []string
	dir   string
	env   []string
}

// startDemo runs a demo with its state in a directory that looks like the repository.
func startDemo(t *testing.T, binary string) *terminal {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); name != "bin" && !strings.HasPrefix(name, ".") {
			symlink(t, filepath.Join(root, name), filepath.Join(dir, name))
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	symlink(t, binary, filepath.Join(dir, "bin", "payments"))
	term := &terminal{dir: dir, env: cleanEnvironment(dir)}

	var log bytes.Buffer
	demo := exec.Command(filepath.Join(dir, "bin", "payments"), "demo")
	demo.Dir, demo.Stdout, demo.Stderr = dir, &log, &log
	demo.Env = append(term.env, "PAYMENTS_ADDR=127.0.0.1:0", "PAYMENTS_ADMIN_ADDR=127.0.0.1:0", "PAYMENTS_SIMULATOR_ADDR=127.0.0.1:0")
	endWithUs(demo, syscall.SIGTERM)
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- demo.Wait() }()
	t.Cleanup(func() {
		_ = demo.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("the demo ended with %v\n%s", err, &log)
		}
	})
	deadline := time.After(readyWithin)
	for {
		if _, err := os.Stat(filepath.Join(dir, ".data", "demo.env")); err == nil {
			return term
		}
		select {
		case err := <-ended:
			ended <- errors.New("it was not ready")
			t.Fatalf("the demo ended with %v\n%s", err, &log)
		case <-deadline:
			t.Fatalf("the demo is not ready\n%s", &log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// cleanEnvironment is the caller's without variables of payments and libpq, and with the demo's
// binary and Postgres' programs in the path.
func cleanEnvironment(dir string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PAYMENTS_") && !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "HISTFILE=") && !strings.HasPrefix(v, "PWD=") {
			env = append(env, v)
		}
	}
	path := filepath.Join(dir, "bin") + string(filepath.ListSeparator) + os.Getenv("PATH")
	return append(env, "PATH="+path, "HISTFILE="+filepath.Join(dir, ".history"), "LC_ALL=C.UTF-8")
}

// tools that a block needs beside curl and what every system has. Without one its blocks are skipped.
var optional = regexp.MustCompile(`(?m)(?:^|[|(;&] *|\$\()(psql|http) `)

// misread are the complaints of a shell that took a block for something else than its writer did.
var misread = regexp.MustCompile(`(?m)^.*(?:command not found|no matches found|event not found|parse error|syntax error|bad substitution|bad pattern|unmatched).*$`)

// paste runs a block as the only one of its terminal, after the demo's variables were read.
func (term *terminal) paste(t *testing.T, b block) {
	t.Helper()
	for _, m := range optional.FindAllStringSubmatch(b.command, -1) {
		if _, err := exec.LookPath(m[1]); err != nil {
			t.Logf("SKIPPED %s: %s is not installed", b, m[1])
			return
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), blockWithin)
	defer cancel()
	run := exec.CommandContext(ctx, term.shell[0], term.shell[1:]...)
	run.Dir, run.Env = term.dir, term.env
	run.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal, and one group to end
	endWithUs(run, syscall.SIGKILL)
	run.WaitDelay = 5 * time.Second // for what the block left behind
	run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
	run.Stdin = strings.NewReader("set -a; . .data/demo.env; set +a\n" + b.command + "\nexit $?\n")
	var stdout, stderr bytes.Buffer
	run.Stdout, run.Stderr = &stdout, &stderr
	err := run.Run()
	if m := misread.FindString(stderr.String()); m != "" {
		t.Errorf("%s: the shell says %q", b, strings.TrimSpace(m))
	}
	if err != nil {
		t.Errorf("%s: %v\n%s%s%s", b, err, b.command, &stdout, &stderr)
		return
	}
	if b.printed != nil && !matches(*b.printed, stdout.String()) {
		t.Errorf("%s printed something else than the page says (-page +printed).\n%s", b, cmp.Diff(strings.Split(normal(*b.printed), "\n"), strings.Split(normal(stdout.String()), "\n")))
	}
}
