package tools

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// apiProcess is one process with the role api, at addresses that it keeps over a release.
type apiProcess struct {
	addr, admin string
	env         []string
	binary      string
	log         bytes.Buffer
	cmd         *exec.Cmd
}

func (p *apiProcess) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.Command(p.binary, "serve")
	p.cmd.Env = append(p.env, "PAYMENTS_ROLES=api", "PAYMENTS_ADDR="+p.addr, "PAYMENTS_ADMIN_ADDR="+p.admin)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	endWithUs(p.cmd, syscall.SIGKILL)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "readiness of the API at "+p.addr, func() bool {
		resp, err := http.Get("http://" + p.admin + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// stop drains it, as `docker stop` does.
func (p *apiProcess) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the API at %s ended with %v\n%s", p.addr, err, &p.log)
	}
}

// await asks until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(readyWithin)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline:
			t.Fatalf("there is no %s", what)
		case <-tick.C:
		}
	}
}

// A release as scripts/release.sh makes it, one process after the other, behind the gateway's own
// configuration: no request of four clients is refused or fails. The containers' names are addresses
// here; all else of the configuration is as it is.
func TestAReleaseBehindTheGatewayRefusesNoRequest(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a demo")
	}
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed")
	}
	// Not beside the pages' examples: its clients take all of the machine.
	runtime.LockOSThread() // see endWithUs; never unlocked
	binary := buildPayments(t)
	term := startDemo(t, binary)
	vars := map[string]string{}
	env := term.env
	for line := range strings.Lines(read(t, filepath.Join(term.dir, ".data", "demo.env"))) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			vars[name] = value
			env = append(env, name+"="+value)
		}
	}
	var processes []*apiProcess
	var servers strings.Builder
	for i := range 2 {
		p := &apiProcess{addr: freeAddress(t), admin: freeAddress(t), env: env, binary: binary}
		p.start(t)
		processes = append(processes, p)
		_, port, err := net.SplitHostPort(p.admin)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&servers, "    server api%d %s check port %s inter 500ms fall 1 rise 1\n", i, p.addr, port)
	}
	gateway, socket := freeAddress(t), filepath.Join(term.dir, "gateway.sock")
	config := read(t, "../deploy/haproxy/haproxy.cfg")
	for old, by := range map[string]string{
		`(?m)^ +server-template .*\n`: servers.String(),
		`bind :8080`:                  "bind " + gateway,
		`(?m)^global\n`:               "global\n    stats socket " + socket + "\n",
	} {
		changed := regexp.MustCompile(old).ReplaceAllLiteralString(config, by)
		if changed == config {
			t.Fatalf("the gateway's configuration has no %s", old)
		}
		config = changed
	}
	path := filepath.Join(term.dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	proxy := exec.Command(haproxy, "-db", "-f", path)
	proxy.Stdout, proxy.Stderr = &log, &log
	endWithUs(proxy, syscall.SIGKILL)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proxy.Process.Kill()
		_ = proxy.Wait()
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", &log)
		}
	})
	bothUp := func() bool {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		defer c.Close()
		if _, err := io.WriteString(c, "show stat\n"); err != nil {
			return false
		}
		stat, _ := io.ReadAll(c)
		return len(regexp.MustCompile(`(?m)^api,api\d,.*,UP,`).FindAll(stat, -1)) == 2
	}
	await(t, "gateway with two servers", bothUp)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done atomic.Int64
	var clients sync.WaitGroup
	for n := range 4 {
		clients.Go(func() {
			// Half of the clients open a connection for each request.
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: n%2 == 0}, Timeout: 30 * time.Second}
			for i := 0; ctx.Err() == nil; i++ {
				if err := ask(client, "http://"+gateway, vars["PAYMENTS_API_KEY"], fmt.Sprintf("r-%d-%d", n, i)); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	for range 2 {
		for _, p := range processes {
			asked := done.Load()
			await(t, "request before a stop", func() bool { return done.Load() > asked+20 })
			p.stop(t)
			asked = done.Load()
			await(t, "request beside one process", func() bool { return done.Load() > asked+20 })
			p.start(t)
			await(t, "gateway with two servers", bothUp)
		}
	}
	cancel()
	clients.Wait()
	for _, p := range processes {
		p.stop(t)
	}
	t.Logf("%d requests over four restarts, none refused", done.Load())
}

// ask posts a payment and reads it.
func ask(client *http.Client, url, key, reference string) error {
	body := fmt.Sprintf(`{"amount": 900, "currency": "EUR", "payment_method": "pm_card_visa", "customer": {"reference": "cust-42"},
		"order": {"reference": %q, "lines": [{"sku": "MUG", "quantity": 1, "unit_amount": 900}]}}`, reference)
	for _, r := range []struct{ method, path, body string }{{"POST", "/v1/payments", body}, {"GET", "/v1/payments?order=" + reference, ""}} {
		req, err := http.NewRequest(r.method, url+r.path, strings.NewReader(r.body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+key)
		if r.body != "" {
			req.Header.Set("Idempotency-Key", reference)
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
		// A service over its bound says so itself: that is no refused connection.
		overloaded := resp.StatusCode == http.StatusServiceUnavailable && bytes.Contains(answer, []byte(`"overloaded"`))
		if resp.StatusCode/100 != 2 && !overloaded {
			return fmt.Errorf("%s %s: %s %s", r.method, r.path, resp.Status, answer)
		}
	}
	return nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, l := freePort(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}
