package tools

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// stand is a clone with a `docker` of its own, which notes what it is asked and answers as told.
type stand struct {
	dir, bin, asked string
}

func newStand(t *testing.T, docker string) *stand {
	t.Helper()
	s := &stand{dir: t.TempDir(), bin: t.TempDir()}
	s.asked = filepath.Join(s.bin, "asked")
	for _, dir := range []string{"scripts", "deploy", "docs/runbooks"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, "scripts/up.sh", read(t, "../scripts/up.sh"), 0o755)
	s.write(t, "deploy/alerts.yml", "", 0o644)
	if err := os.WriteFile(filepath.Join(s.bin, "docker"), []byte("#!/bin/bash\necho \"$*\" >>"+s.asked+"\n"+docker), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stand) write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func (s *stand) up(t *testing.T) (string, int) {
	t.Helper()
	run := exec.CommandContext(t.Context(), "bash", filepath.Join(s.dir, "scripts", "up.sh"))
	run.Env = append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"))
	out, _ := run.CombinedOutput()
	return string(out), run.ProcessState.ExitCode()
}

// working is a docker that does all it is asked. `config` publishes one port.
func working(port int, published string) string {
	return `case "$*" in
  "version --format {{.Server.Version}}") echo 28.1.0 ;;
  "compose version --short") echo v2.35.1 ;;
  "compose config") echo '        published: "` + strconv.Itoa(port) + `"' ;;
  "compose ps --format {{.Ports}}") echo '` + published + `' ;;
  *"secrets show "*) echo "value of ${@: -1}" ;;
  *"secrets show") echo PAYMENTS_API_KEY=sk_test_x ;;
  *"ready") echo Ready. ;;
esac
`
}

func freePort(t *testing.T) (int, net.Listener) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port, l //nolint:forcetypeassert // of a TCP listener
}

// What would fail half way is refused with a sentence that helps, before anything starts.
func TestUpRefusesBeforeAnythingStarts(t *testing.T) {
	taken, _ := freePort(t)
	free, l := freePort(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		docker string
		change func(s *stand)
		says   []string
	}{
		"an old engine":      {"echo 20.10.24\n", nil, []string{"The Docker engine is 20.10.24", "25.0"}},
		"no engine":          {"exit 1\n", nil, []string{"The Docker engine does not answer"}},
		"no compose":         {"[[ $1 == version ]] && echo 27.0.1 || exit 1\n", nil, []string{"Docker Compose is not installed", "2.24.0"}},
		"an old compose":     {"[[ $1 == version ]] && echo 27.0.1 || echo v2.9.0\n", nil, []string{"Docker Compose is v2.9.0", "2.24.0"}},
		"a taken port":       {working(taken, ""), nil, []string{"Port " + strconv.Itoa(taken), "nothing was started", "PAYMENTS_PORT"}},
		"a strict umask":     {working(free, ""), func(s *stand) { s.write(t, "deploy/alerts.yml", "", 0o600) }, []string{"deploy/alerts.yml", "chmod -R a+rX"}},
		"an unreadable .env": {working(free, ""), func(s *stand) { s.write(t, ".env", "", 0) }, []string{".env cannot be read"}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "an unreadable .env" && os.Getuid() == 0 {
				t.Skip("root reads it")
			}
			s := newStand(t, c.docker)
			if c.change != nil {
				c.change(s)
			}
			out, code := s.up(t)
			if code != 2 {
				t.Errorf("exit code %d, want 2: %s", code, out)
			}
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q: %s", want, out)
				}
			}
			if asked, _ := os.ReadFile(s.asked); strings.Contains(string(asked), "compose up") || strings.Contains(string(asked), "compose build") {
				t.Errorf("it has started something:\n%s", asked)
			}
		})
	}
}

// Keys and the Grafana login stand at the end, .env is made once, and a port of the running stack
// is its own.
func TestUpSaysWhatToDoNext(t *testing.T) {
	port, _ := freePort(t) // which the running stack has
	s := newStand(t, working(port, "127.0.0.1:"+strconv.Itoa(port)+"->8080/tcp"))
	for _, begun := range []bool{false, true} {
		out, code := s.up(t)
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, out)
		}
		for _, want := range []string{"Ready.", "value of PAYMENTS_API_KEY", "value of PAYMENTS_OPERATOR_KEY", "admin / value of GRAFANA_ADMIN_PASSWORD"} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not say %q: %s", want, out)
			}
		}
		if strings.Contains(out, "wrote .env") == begun {
			t.Errorf("a second start: %v, and it says %s", begun, out)
		}
		info, err := os.Stat(filepath.Join(s.dir, ".env"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf(".env: %v, %v", info, err)
		}
		s.write(t, ".env", "PAYMENTS_API_KEY=mine\n", 0o600)
	}
	if got := read(t, filepath.Join(s.dir, ".env")); got != "PAYMENTS_API_KEY=mine\n" {
		t.Errorf(".env was overwritten: %s", got)
	}
}

// failing is a stand on which the stack does not start, and on which docker answers these cases of a
// shell first. All other containers are healthy.
func failing(t *testing.T, cases string) *stand {
	t.Helper()
	port, l := freePort(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return newStand(t, `case "$*" in
  "compose up --wait") exit 1 ;;`+cases+`
  "compose ps -a "*) echo "running 0 healthy" ;;
esac
`+working(port, ""))
}

// A start that fails names the service that did, its last lines, and where the way on is told.
func TestUpNamesWhatFailed(t *testing.T) {
	s := failing(t, `
  "compose ps -a "*" postgres") echo "created 0 " ;;
  "compose ps -a "*" migrate") echo "exited 1 " ;;
  "compose logs "*" migrate") echo "password authentication failed" ;;`)
	out, code := s.up(t)
	for _, want := range []string{"The service migrate did not get ready", "password authentication failed", "docs/operations/compose.md#when-it-does-not-start"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q: %s", want, out)
		}
	}
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if !strings.Contains(read(t, "../docs/operations/compose.md"), "\n## When it does not start\n") {
		t.Error("the page has no such section")
	}
}

func TestUpNamesWhatDockerCouldNotStart(t *testing.T) {
	s := failing(t, `
  "compose ps -a "*" postgres") echo "created 0 " ;;
  "compose ps -a "*" migrate") echo "created 0 " ;;`)
	if out, code := s.up(t); code != 1 || !strings.Contains(out, "Docker could not start the service postgres.") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// A service that is not looked at fails without a word: each one that `up` starts is, and after
// those that it waits for.
func TestUpLooksAtEachService(t *testing.T) {
	_, list, _ := strings.Cut(read(t, "../scripts/up.sh"), "  for service in ")
	list, _, _ = strings.Cut(list, ";")
	looked := strings.Fields(list)
	for name, s := range compose(t).Services {
		if len(s.Profiles) > 0 {
			continue
		}
		at := slices.Index(looked, name)
		if at < 0 {
			t.Errorf("scripts/up.sh does not look at %s", name)
		}
		for on := range s.DependsOn {
			if slices.Index(looked, on) > at {
				t.Errorf("scripts/up.sh looks at %s before %s, which it waits for", name, on)
			}
		}
	}
}
