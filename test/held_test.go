package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// held is how many connections of each kind TestTermEndsHeldConnections opens.
const held = 300

// SIGTERM ends a service whose clients hold connections open in every way that costs them
// nothing. What was accepted is answered, and the exit code is 0.
func TestTermEndsHeldConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	w.http = w.httpClient(&http.Transport{}) // as many connections as there are waits
	s := w.serve(map[string]string{
		"PAYMENTS_STREAMS_PER_MERCHANT": "1000", "PAYMENTS_WAITS_PER_MERCHANT": "1000", "PAYMENTS_RATE_LIMIT": "0", "PAYMENTS_STRANGER_LIMIT": "0", "PAYMENTS_UNFINISHED_PAYMENTS": "0",
		"PAYMENTS_PROVIDER_TIMEOUT": "4s", "PAYMENTS_PROVIDER_HORIZON": "30s", // no lost answer is resolved while clients wait
	})
	before := w.paid(s, "before", order("before", "pm_card_visa"))
	auth := "Authorization: Bearer " + w.vars["PAYMENTS_API_KEY"] + "\r\n"
	post := func(path string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 64\r\n" + auth + "\r\n"
	}
	for kind, sent := range map[string]string{
		"no header":                    "",
		"half a header":                "GET /v1/payments HTTP/1.1\r\nHost: x\r\nX-Half: ",
		"half a body, known route":     post("/v1/payments") + "{",
		"half a body, unknown route":   post("/v1/nothing") + "{",
		"half a body, no key":          strings.Replace(post("/v1/payments"), auth, "", 1) + "{",
		"half a body, wrong method":    strings.Replace(post("/v1/payments"), "POST", "PATCH", 1) + "{",
		"half a body of a public page": strings.Replace(post("/docs"), "POST", "GET", 1) + "{",
		"an open stream":               "GET /v1/payments/" + before.ID + "/events HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n",
		"idle after an answer":         "GET /v1/payments/" + before.ID + " HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n",
	} {
		answered := strings.HasPrefix(kind, "idle") || strings.HasSuffix(kind, "stream")
		w.hold(s.url, held, sent, answered)
		if strings.HasPrefix(kind, "no header") || strings.HasPrefix(kind, "half a body") {
			w.hold(s.admin, held/10, sent, false)
			w.hold(w.vars["PAYMENTS_PROVIDER_URL"], held/10, sent, false)
		}
	}
	// So many answers that no socket's buffers hold them.
	w.hold(s.url, held/15, strings.Repeat("GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n", 200), true)
	w.hold(s.admin, held/15, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 500), true)

	var waiting sync.WaitGroup
	for i := range held {
		waiting.Go(func() {
			name := fmt.Sprintf("held-%d", i)
			a, err := w.post(s, name, order(name, "pm_card_timeout_lost"), map[string]string{"Prefer": "wait=30"})
			for err == nil && a.status == http.StatusServiceUnavailable { // a busy machine: nothing was accepted
				a, err = w.post(s, name, order(name, "pm_card_timeout_lost"), map[string]string{"Prefer": "wait=30"})
			}
			if err != nil || a.status != http.StatusAccepted {
				t.Errorf("a client that waited for %s was answered %d %s %v", name, a.status, a.body, err)
			}
		})
	}
	await(t, settleWithin, func() string {
		if n := w.count(`SELECT count(*) FROM orders WHERE reference LIKE 'held-%'`); n < held {
			return fmt.Sprintf("%d of %d payments are accepted", n, held)
		}
		return ""
	})
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("the service: exit code %d after SIGTERM", code)
	}
	waiting.Wait()
	if code := w.simulator.end(syscall.SIGTERM); code != 0 {
		t.Errorf("the simulator: exit code %d after SIGTERM", code)
	}
}

// hold opens n connections, sends the same bytes on each, and keeps them open until the test ends.
// With answered it waits for the first line of an answer, and leaves the rest unread.
func (w *world) hold(url string, n int, sent string, answered bool) {
	w.t.Helper()
	for range n {
		var d net.Dialer
		c, err := d.DialContext(w.t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { c.Close() })
		go func() { _, _ = io.WriteString(c, sent) }() // the server may close before all is sent
		if !answered {
			continue
		}
		if err := c.SetReadDeadline(time.Now().Add(readyWithin)); err != nil {
			w.t.Fatal(err)
		}
		line, err := bufio.NewReaderSize(c, 16).ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) || !strings.HasPrefix(string(line), "HTTP/1.1 200") {
			w.t.Fatalf("answered %q, %v", line, err)
		}
	}
}
