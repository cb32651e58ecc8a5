package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	readyWithin = 60 * time.Second
	endWithin   = 60 * time.Second
)

// Process is a running subcommand. Its standard error is in a file.
type Process struct {
	Name string
	// URL and Admin are the addresses of a service.
	URL, Admin string

	command *exec.Cmd
	log     string
	done    chan struct{}
}

func start(dir, name, program string, vars map[string]string, args ...string) (*Process, error) {
	p := &Process{Name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.command = exec.Command(program, args...) //nolint:noctx,gosec // the program under test; Stop ends it
	p.command.Env = environ(vars)
	p.command.Stdout, p.command.Stderr = log, log
	endWithUs(p.command)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // a child ends with the thread that started it
		defer runtime.UnlockOSThread()
		defer close(p.done)
		defer log.Close()
		err := p.command.Start()
		started <- err
		if err == nil {
			_ = p.command.Wait() // how it ended is in ProcessState
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// environ has the variables and of the caller's environment only what every program needs.
func environ(vars map[string]string) []string {
	list := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")} //nolint:forbidigo // handed to a child
	for name, value := range vars {
		list = append(list, name+"="+value)
	}
	return list
}

// PID of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// Stop ends it in order and waits for that.
func (p *Process) Stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.done:
	case <-time.After(endWithin):
		_ = p.command.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop within %s and was killed; see %s", p.Name, endWithin, p.log)
	}
	if code := p.command.ProcessState.ExitCode(); code != 0 && code != -1 {
		return fmt.Errorf("%s ended with exit code %d; the end of its log: %s", p.Name, code, tail(p.log))
	}
	return nil
}

// ready waits until the URL answers 200.
func (p *Process) ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	client := &http.Client{Timeout: 5 * time.Second}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		if answer, err := client.Do(request); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready; the end of its log: %s", p.Name, tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready within %s; the end of its log: %s", p.Name, readyWithin, tail(p.log))
		}
	}
}

// tail is the last kilobyte of a log.
func tail(path string) []byte {
	content, _ := os.ReadFile(path) //nolint:gosec // a log of ours; the error that it illustrates is told anyway
	return content[max(0, len(content)-1024):]
}
