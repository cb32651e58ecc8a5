package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// handClock stands still until a test fires one of its timers.
type handClock struct {
	mu      sync.Mutex
	now     time.Time
	timers  []*handTimer
	changed chan struct{}
}

type handTimer struct {
	d   time.Duration
	due time.Time
	f   func()
}

func newHandClock() *handClock {
	return &handClock{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), changed: make(chan struct{})}
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	timer := &handTimer{d, c.now.Add(d), f}
	c.timers = append(c.timers, timer)
	close(c.changed)
	c.changed = make(chan struct{})
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.remove(timer)
	}
}

func (c *handClock) remove(timer *handTimer) bool {
	for i, other := range c.timers {
		if other == timer {
			c.timers = append(c.timers[:i], c.timers[i+1:]...)
			return true
		}
	}
	return false
}

// await returns once somebody waits for exactly d.
func (c *handClock) await(t *testing.T, d time.Duration) {
	t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		changed := c.changed
		for _, timer := range c.timers {
			if timer.d == d {
				c.mu.Unlock()
				return
			}
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("nobody began to wait for %s", d)
		}
	}
}

func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for i := 0; i < len(c.timers); {
		timer := c.timers[i]
		if timer.due.After(c.now) {
			i++
			continue
		}
		c.remove(timer)
		go timer.f()
	}
}

// bank is a simulator on a real socket.
type bank struct {
	t     *testing.T
	clock *handClock
	path  string
	sim   *Simulator
	srv   *httptest.Server
	reg   *prometheus.Registry

	webhook Webhook
}

func newBank(t *testing.T) *bank {
	t.Helper()
	b := &bank{t: t, clock: newHandClock(), path: filepath.Join(t.TempDir(), "data", "ledger.db")}
	b.open()
	t.Cleanup(b.close)
	return b
}

func (b *bank) open() {
	b.t.Helper()
	b.reg = prometheus.NewRegistry()
	sim, err := Open(b.path, Config{Clock: b.clock, Registerer: b.reg, Webhook: b.webhook})
	if err != nil {
		b.t.Fatal(err)
	}
	b.sim, b.srv = sim, httptest.NewServer(sim.Handler())
}

func (b *bank) close() {
	b.t.Helper()
	if err := b.sim.Close(); err != nil {
		b.t.Error(err)
	}
	b.srv.Close()
}

func (b *bank) restart() { b.close(); b.open() }

type reply struct {
	status int
	header http.Header
	body   []byte
	op     operation
	err    error
}

func (b *bank) do(ctx context.Context, method, path, key, body string) (r reply) {
	req, err := http.NewRequestWithContext(ctx, method, b.srv.URL+path, struct{ io.Reader }{strings.NewReader(body)})
	if err != nil {
		return reply{err: err}
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := b.srv.Client().Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	r.status, r.header = resp.StatusCode, resp.Header
	if r.body, r.err = io.ReadAll(resp.Body); r.err == nil {
		_ = json.Unmarshal(r.body, &r.op) // not every body is an operation
	}
	return r
}

// call is a money operation that a test sends.
type call struct{ path, key, body string }

func authorize(key, method string) call {
	return call{"/v1/authorizations", key, fmt.Sprintf(`{"reference":"pay_1","amount":4998,"currency":"EUR","payment_method":%q}`, method)}
}

func captureOf(key, parent string, amount int64) call {
	return call{"/v1/captures", key, fmt.Sprintf(`{"reference":"pay_1","authorization":%q,"amount":%d,"currency":"EUR"}`, parent, amount)}
}

func voidOf(key, parent string) call {
	return call{"/v1/voids", key, fmt.Sprintf(`{"reference":"pay_1","authorization":%q}`, parent)}
}

func refundOf(key, parent string, amount int64) call {
	return call{"/v1/refunds", key, fmt.Sprintf(`{"reference":"pay_1","capture":%q,"amount":%d,"currency":"EUR"}`, parent, amount)}
}

func (b *bank) send(c call) reply {
	b.t.Helper()
	r := b.do(b.t.Context(), http.MethodPost, c.path, c.key, c.body)
	if r.err != nil {
		b.t.Fatal(r.err)
	}
	return r
}

// want sends c and expects an answer; code is of a decline, or empty.
func (b *bank) want(c call, status int, code string) operation {
	b.t.Helper()
	r := b.send(c)
	if r.status != status || r.op.Code != code {
		b.t.Fatalf("%s answered %d %s, want %d %q", c.path, r.status, r.body, status, code)
	}
	return r.op
}

// background sends c and goes on.
func (b *bank) background(ctx context.Context, method string, c call) <-chan reply {
	answered := make(chan reply, 1)
	go func() { answered <- b.do(ctx, method, c.path, c.key, c.body) }()
	return answered
}

// held sends c, sees the simulator begin to hold it, and gives up on it.
func (b *bank) held(method string, c call) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	answered := b.background(ctx, method, c)
	b.clock.await(b.t, holdLimit)
	cancel()
	if r := <-answered; r.err == nil {
		b.t.Fatalf("%s answered %d %s, want no answer", c.path, r.status, r.body)
	}
	b.eventually("the hold ends with its client", func() bool { return b.clock.waiting(holdLimit) == 0 })
}

func (c *handClock) waiting(d time.Duration) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, timer := range c.timers {
		if timer.d == d {
			n++
		}
	}
	return n
}

func (b *bank) eventually(what string, condition func() bool) {
	b.t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.After(patience); !condition(); {
		select {
		case <-poll.C:
		case <-deadline:
			b.t.Fatalf("did not happen: %s", what)
		}
	}
}

func (b *bank) list(query url.Values) []operation {
	b.t.Helper()
	r := b.do(b.t.Context(), http.MethodGet, "/v1/operations?"+query.Encode(), "", "")
	var list struct {
		Object string
		Data   []operation
	}
	if err := json.NewDecoder(bytes.NewReader(r.body)).Decode(&list); r.err != nil || err != nil || r.status != http.StatusOK || list.Object != "list" || list.Data == nil {
		b.t.Fatalf("list: %d %s %v %v", r.status, r.body, r.err, err)
	}
	return list.Data
}

func (b *bank) byKey(key string) []operation {
	b.t.Helper()
	return b.list(url.Values{"idempotency_key": {key}})
}

func (b *bank) fault(body string) {
	b.t.Helper()
	if r := b.do(b.t.Context(), http.MethodPost, "/v1/faults", "", body); r.status != http.StatusCreated {
		b.t.Fatalf("fault: %d %s %v", r.status, r.body, r.err)
	}
}
