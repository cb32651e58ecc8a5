package test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// endWithin bounds an orderly end: the service's own grace is shorter.
const endWithin = 2 * time.Minute

// process is a running subcommand. It is ended with the test, and fails it when
// it panicked or raced.
type process struct {
	t       *testing.T
	command *exec.Cmd
	stdout  *lines
	log     string // the file that has its standard error
	done    chan struct{}
}

// start appends to the log of the same name in dir.
func start(t *testing.T, dir, name string, vars map[string]string, args ...string) *process {
	t.Helper()
	p := &process{t: t, log: filepath.Join(dir, name+".log"), stdout: &lines{}, done: make(chan struct{})}
	_, err := os.Stat(p.log)
	first := os.IsNotExist(err)
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p.command = exec.Command(program, args...)
	p.command.Env, p.command.Stdout, p.command.Stderr = environ(vars), p.stdout, log
	endWithUs(p.command)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // a child ends with the thread that started it
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.command.Start()
		started <- err
		if err == nil {
			_ = p.command.Wait() // how it ended is in ProcessState
		}
		_ = log.Close()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if first { // of the lives that share the log, and so the last to be cleaned up
			p.inspect()
		}
	})
	return p
}

// kill is SIGKILL, and waits for the end. A process that has ended stays ended.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.done
}

// end sends the signal and gives the exit code; -1 means that a signal ended it.
func (p *process) end(s syscall.Signal) int {
	p.t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Fatalf("%s ended before it was told to: %v", filepath.Base(p.log), err)
	}
	return p.code()
}

// code waits for the end.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.command.ProcessState.ExitCode()
	case <-time.After(endWithin):
		p.t.Fatalf("%s did not end within %s", filepath.Base(p.log), endWithin)
		return -1
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// inspect shows the log of a failed test, and fails one whose process crashed by itself.
func (p *process) inspect() {
	content, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
		return
	}
	for _, sign := range []string{"WARNING: DATA RACE", "panic:", "fatal error:", `"msg":"handler panicked"`} {
		if i := bytes.Index(content, []byte(sign)); i >= 0 {
			p.t.Errorf("%s has %q:\n%s", filepath.Base(p.log), sign, content[i:min(len(content), i+4000)])
		}
	}
	if p.t.Failed() {
		p.t.Logf("the end of %s:\n%s", filepath.Base(p.log), content[max(0, len(content)-3000):])
	}
}

// lines is written by a process and read by the test.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await polls until holds gives "", which else says what is still missing.
func await(t *testing.T, within time.Duration, holds func() (missing string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := holds()
		if missing == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %s: %s", within, missing)
		}
	}
}
