package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"

	"payments/internal/payment"
)

func TestEveryAnswerIsHardened(t *testing.T) {
	w := newWorld(t)
	const notification = `{"id":"evt_1"}`
	for what, a := range map[string]answer{
		"200": w.do("GET", "/v1/payments", w.merchant, ""), "202": w.post(w.merchant, good, key("k")...), "401": w.do("GET", "/v1/payments", "", ""),
		"404": w.do("GET", "/nowhere", "", ""), "405": w.do("BREW", "/v1/stock", "", ""), "413": w.post(w.merchant, strings.Repeat(" ", 65<<10), key("l")...),
		"signed": w.do("POST", "/v1/provider/webhooks/simulator", "", notification),
	} {
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
			"Strict-Transport-Security": "", // which is for TLS alone
			"Server":                    "", "X-Powered-By": "",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", what, name, got, want)
			}
		}
		if a.header.Get("Request-Id") == "" {
			t.Errorf("%s: no request id", what)
		}
	}
}

// dial gives a connection to the world's server, on which anything can be written.
func (w *world) dial() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// raw writes a request as it is and reads the answer to it.
func (w *world) raw(request string) answer {
	w.t.Helper()
	c := w.dial()
	go func() { _, _ = io.WriteString(c, request) }() // which the server need not read to its end
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		w.t.Fatalf("%.60q: %v", request, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func TestHeadersAreBounded(t *testing.T) {
	w := newWorld(t)
	get := func(more string) string { return "GET /v1/payments HTTP/1.1\r\nHost: x\r\n" + more + "\r\n" }
	var many strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&many, "X-Filler-%d: abcdefgh\r\n", i)
	}
	for what, test := range map[string]struct {
		request string
		status  int
	}{
		"bounded":            {get("X-Filler: " + strings.Repeat("x", 15<<10) + "\r\n"), 401},
		"one that is huge":   {get("X-Filler: " + strings.Repeat("x", 32<<10) + "\r\n"), 431},
		"one without an end": {"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20), 431},
		"too many":           {get(many.String()), 431},
		"a huge target":      {"GET /" + strings.Repeat("x", 32<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		"no host":            {"GET /v1/payments HTTP/1.1\r\n\r\n", 400},
		"two lengths":        {"POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
		"length and chunks":  {"POST /v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\nab", 501},
		"a line in a header": {get("X: a\rb\r\n"), 400},
		"space before colon": {get("Host : y\r\n"), 400},
	} {
		if a := w.raw(test.request); a.status != test.status {
			t.Errorf("%s: %d %s, want %d", what, a.status, a.body, test.status)
		}
	}
}

// pipe is a listener of connections in memory, on which a bubble's time can pass.
type pipe struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipe) Close() error   { close(p.done); return nil }
func (p *pipe) Addr() net.Addr { return &net.TCPAddr{} }

// bubble has a clock that runs on while everybody waits.
type bubble struct {
	t *testing.T
	c net.Conn // the client's end of a connection to a server
}

func inBubble(t *testing.T, client func(b bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{Config: Config{
			Log: slog.New(slog.DiscardHandler), Tracer: noop.NewTracerProvider().Tracer(""),
			IDs: payment.Generator{Now: time.Now, Random: bytes.NewReader(make([]byte, 1<<10))},
		}}
		m, err := newMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		s.metrics, s.deprecations = m, make([]deprecations, len(versions))
		h := s.observe(s.serve(route{signed: true, handle: func(ctx context.Context, c *call) error {
			b, err := c.body()
			if err != nil {
				return err
			}
			return s.ok(ctx, c, len(b))
		}}))
		l := &pipe{make(chan net.Conn), make(chan struct{})}
		server := NewServer(h, s.Log)
		served := make(chan error)
		go func() { served <- server.Serve(l) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		client(bubble{t, ours})
		ours.Close()
		server.Close()
		<-served
	})
}

// drip writes a byte a second until the server has had enough, or stop.
func (b bubble) drip(what string) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := io.WriteString(b.c, what); err != nil {
				return
			}
			<-time.After(time.Second)
		}
	}()
	return func() {
		b.c.Close()
		<-done
	}
}

// ended checks that the server closes the connection, so long after start.
func (b bubble) ended(r io.Reader, start time.Time, after time.Duration) {
	b.t.Helper()
	more, err := io.ReadAll(r)
	if took := time.Since(start); err != nil || len(more) != 0 || took != after {
		b.t.Errorf("the connection ended after %s, %v, want %s; more came: %q", took, err, after, more)
	}
}

const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 64\r\n\r\n"

func TestSlowHeadersEndTheConnection(t *testing.T) {
	inBubble(t, func(b bubble) {
		start := time.Now()
		_, _ = io.WriteString(b.c, strings.TrimSuffix(head, "\r\n")+"X-Slow: ")
		defer b.drip("x")()
		b.ended(b.c, start, headerTimeout)
	})
	inBubble(t, func(b bubble) { b.ended(b.c, time.Now(), headerTimeout) })
}

func TestASlowBodyIsRefusedAndEndsTheConnection(t *testing.T) {
	inBubble(t, func(b bubble) {
		start := time.Now()
		_, _ = io.WriteString(b.c, head)
		defer b.drip(" ")()
		r := bufio.NewReader(b.c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if took := time.Since(start); err != nil || resp.StatusCode != http.StatusRequestTimeout || !resp.Close || took != bodyTimeout ||
			!strings.Contains(string(body), string(codeBodyTimeout)) {
			b.t.Errorf("after %s: %v %s, %v", took, resp.Status, body, err)
		}
		_, _ = io.ReadAll(r) // to the end of the connection
		if took := time.Since(start); took > bodyTimeout+time.Second {
			b.t.Errorf("the connection ended after %s", took)
		}
	})
}

func TestAnIdleConnectionEnds(t *testing.T) {
	inBubble(t, func(b bubble) {
		_, _ = io.WriteString(b.c, head+strings.Repeat(" ", 64))
		r := bufio.NewReader(b.c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "64" {
			b.t.Errorf("%v %s, %v", resp.Status, body, err)
		}
		b.ended(r, time.Now(), idleTimeout)
	})
}

func TestAClientThatDoesNotReadEndsTheConnection(t *testing.T) {
	inBubble(t, func(b bubble) {
		_, _ = io.WriteString(b.c, head+strings.Repeat(" ", 64))
		<-time.After(writeTimeout)
		synctest.Wait()
		b.ended(b.c, time.Now(), 0)
	})
}
