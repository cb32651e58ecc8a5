package test

import (
	"bufio"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What `make demo` runs, twice on the same data.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, w := startDemo(t, dir)
	s := &service{url: w.vars["PAYMENTS_URL"]}
	won := w.paid(s, "demo-1", order("D-1", "pm_card_visa"))
	if won.Status != "succeeded" {
		t.Errorf("paid: %+v", won)
	}
	for _, want := range []string{w.vars["PAYMENTS_URL"], w.vars["PAYMENTS_API_KEY"], w.vars["PAYMENTS_OPERATOR_KEY"], "curl ", filepath.Join(dir, "demo.env")} {
		if !strings.Contains(first.stdout.String(), want) {
			t.Errorf("what the demo prints has no %q:\n%s", want, first.stdout)
		}
	}
	w.must("audit")
	// A second service of the same installation, as the file's variables make it.
	w.serve(nil)
	if code := first.end(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}

	second, again := startDemo(t, dir)
	for _, name := range []string{"PAYMENTS_API_KEY", "PAYMENTS_API_KEY_2", "PAYMENTS_OPERATOR_KEY", "PAYMENTS_OPERATOR_KEY_2", "PAYMENTS_PEPPER_KEYSET", "PAYMENTS_DATABASE_URL"} {
		if again.vars[name] == "" || again.vars[name] != w.vars[name] {
			t.Errorf("%s is another one at the second start", name)
		}
	}
	s.url = again.vars["PAYMENTS_URL"]
	if diff := cmp.Diff(won, again.payment(s, won.ID)); diff != "" {
		t.Errorf("the earlier payment: %s", diff)
	}
	if diff := cmp.Diff(won, again.paid(s, "demo-1", order("D-1", "pm_card_visa"))); diff != "" {
		t.Errorf("the earlier key: %s", diff)
	}
	if p := again.paid(s, "demo-2", order("D-2", "pm_card_visa")); p.Status != "succeeded" {
		t.Errorf("paid after the second start: %+v", p)
	}
	await(t, settleWithin, func() string {
		if out, _, code := run(t.Context(), again.vars, "audit", "-settled"); code != 0 {
			return out
		}
		return ""
	})
	if code := second.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	for _, url := range []string{again.vars["PAYMENTS_URL"], again.vars["PAYMENTS_SIMULATOR_URL"]} {
		if again.answers(url+"/healthz") == "" {
			t.Errorf("%s is served after the demo's end", url)
		}
	}
}

// A second demo in the directory of a running one ends at once, and changes nothing there.
func TestASecondDemoLeavesTheFirstAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, w := startDemo(t, dir)
	before := contents(t, dir, "demo.env", "secrets.env")
	_, stderr, code := run(t.Context(), map[string]string{"PAYMENTS_DATA_DIR": dir}, "demo")
	if want := "payments: PAYMENTS_DATA_DIR: another running process uses " + dir + "\n"; code != 1 || stderr != want {
		t.Errorf("exit code %d of the second demo: %s", code, stderr)
	}
	if diff := cmp.Diff(before, contents(t, dir, "demo.env", "secrets.env")); diff != "" {
		t.Error("the second demo has changed the first one's files")
	}
	if p := w.paid(&service{url: w.vars["PAYMENTS_URL"]}, "second-1", order("S-1", "pm_card_visa")); p.Status != "succeeded" {
		t.Errorf("paid at the first demo: %+v", p)
	}
	if code := first.end(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
}

// A shell that reads demo.env, and what the demo prints, is given what is meant by it,
// whatever the directory's name holds.
func TestADemoInADirectoryThatAShellWouldExpand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/a b'c\"d$HOME`id`#e;*~%2F&\\(ü)"
	d, w := startDemo(t, dir)
	_, block, _ := strings.Cut(d.stdout.String(), "\n  set -a;")
	block, _, _ = strings.Cut("set -a;"+block, "\n\n")
	shell := exec.CommandContext(t.Context(), "bash", "-c", block+"\necho; env")
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), `"status":"succeeded"`) {
		t.Errorf("the first payment, as it is printed: %s", out)
	}
	inShell := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && strings.HasPrefix(name, "PAYMENTS_") {
			inShell[name] = value
		}
	}
	if diff := cmp.Diff(w.vars, inShell); diff != "" {
		t.Errorf("a shell reads other values than NAME=value says: %s", diff)
	}
	w.must("audit")
	if code := d.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func TestADemoRefusesALineBreakInItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/a\nb"
	_, stderr, code := run(t.Context(), map[string]string{"PAYMENTS_DATA_DIR": dir}, "demo")
	if code != 2 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "has a line break in its name") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has made the directory: %v", err)
	}
}

func contents(t *testing.T, dir string, names ...string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
	}
	return files
}

// startDemo waits for demo.env, which has to mean that everything is ready, and
// gives a world with its variables.
func startDemo(t *testing.T, dir string) (*process, *world) {
	t.Helper()
	path := filepath.Join(dir, "demo.env")
	begun := time.Now()
	// A file of an earlier run says nothing about this one.
	stale, err := os.Stat(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	d := start(t, t.TempDir(), "demo", map[string]string{"PAYMENTS_DATA_DIR": dir}, "demo")
	var written os.FileInfo
	await(t, readyWithin, func() string {
		if !d.running() {
			t.Fatalf("the demo ended with exit code %d", d.code())
		}
		written, err = os.Stat(path)
		if err != nil || stale != nil && !written.ModTime().After(stale.ModTime()) {
			return "there is no new demo.env"
		}
		return ""
	})
	t.Logf("ready %s after the start", time.Since(begun).Round(100*time.Millisecond))
	if written.Mode().Perm() != 0o600 {
		t.Errorf("demo.env has mode %v", written.Mode())
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := &world{t: t, dir: t.TempDir(), vars: map[string]string{}}
	w.http = w.httpClient(&http.Transport{MaxIdleConnsPerHost: 4})
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, ok := strings.Cut(s.Text(), "=")
		if !ok || !strings.HasPrefix(name, "PAYMENTS_") || strings.ContainsAny(value, "'\" ") {
			t.Errorf("demo.env has a line that is no plain NAME=value: %q", name)
		}
		w.vars[name] = value
	}
	for _, name := range []string{"PAYMENTS_ADMIN_URL", "PAYMENTS_SIMULATOR_URL"} {
		w.elsewhere.Store(strings.TrimPrefix(w.vars[name], "http://"), true)
	}
	for _, url := range []string{w.vars["PAYMENTS_ADMIN_URL"] + "/readyz", w.vars["PAYMENTS_SIMULATOR_URL"] + "/healthz"} {
		if missing := w.answers(url); missing != "" {
			t.Errorf("demo.env is there, but %s", missing)
		}
	}
	await(t, readyWithin, func() string {
		if !strings.Contains(d.stdout.String(), "Ready.") {
			return "the demo does not say that it is ready"
		}
		return ""
	})
	return d, w
}
