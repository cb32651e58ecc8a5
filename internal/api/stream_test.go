package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/payment"
	"payments/internal/readmodel"
)

// ghost is where nobody can say whether a key is still one.
type ghost struct{}

func (ghost) Live(context.Context, []string) (map[string]bool, error) { return nil, errors.New("away") }

func TestAStreamEndsWhenNobodyKnowsItsKey(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	s, err := NewStreams(StreamsConfig{Followers: readmodel.NewFollowers(w.pool), Keys: ghost{}, Now: func() time.Time { return now }, Registerer: w.registry})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RunOnce(t.Context()); err != nil { // there is nobody
		t.Fatal(err)
	}
	ctx, end, err := s.begin(t.Context(), "key_1", "/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer end(nil)
	for _, c := range []struct {
		later time.Duration
		ended bool
	}{{keyCheck, false}, {keyPatience - 2*keyCheck, false}, {keyCheck, true}} {
		now = now.Add(c.later)
		if _, err := s.RunOnce(t.Context()); err == nil || (ctx.Err() != nil) != c.ended {
			t.Errorf("after %s: %v, ended %v", c.later, err, ctx.Err())
		}
	}
}

func TestStreamsEndWhenTheServiceDrains(t *testing.T) {
	w := newWorld(t)
	s := w.follow("/v1/events", w.merchant, "")
	w.api.Streams.Drain()
	s.ends()
	w.refused("while it drains", w.do("GET", "/v1/events", w.merchant, ""), 503, payment.CodeServiceUnavailable)
}

func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.api.Held = HeldLimits{Streams: 4, StreamsOfMerchant: 2}
	w.reopen(StreamsConfig{Heartbeat: time.Millisecond})
	first := w.follow("/v1/events", w.merchant, "")
	if e, err := first.next(); err != nil || e.comment == "" {
		t.Errorf("in place of a heartbeat there is %+v, %v", e, err)
	}
	_ = w.follow("/v1/events", w.merchant, "")
	for what, key := range map[string]string{"the same key": w.merchant, "another key of the merchant": w.reader} {
		a := w.do("GET", "/v1/events", key, "")
		w.refused("a third, with "+what, a, 429, codeTooManyHeld)
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("%s: headers %v", what, a.header)
		}
	}
	_ = w.follow("/v1/events", w.other, "")
	w.refused("a second of four, while one is free", w.do("GET", "/v1/events", w.other, ""), 429, codeTooManyHeld)
	last := w.follow("/v1/events?merchant="+w.merchantID, w.support, "")
	w.refused("a fifth of four", w.do("GET", "/v1/events?merchant="+w.merchantID, w.auditor, ""), 429, codeTooManyHeld)
	first.close()
	last.close() // of four two are free, and the merchant has one
	for {        // until the service has seen that it is closed
		a := w.do("HEAD", "/v1/events", w.merchant, "")
		if a.status == 200 {
			break
		}
	}
	_ = w.follow("/v1/events", w.merchant, "")
}

// pipes is a listener without buffers: what nobody reads cannot be written.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.conns <- addressed{server}
	return client, nil
}

// addressed has an address that requests may come from.
type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }

func TestASlowReaderHoldsNobodyUpAndIsLeft(t *testing.T) {
	w := newWorld(t)
	w.reopen(StreamsConfig{WriteTimeout: time.Second, Heartbeat: 10 * time.Millisecond})
	posts := w.server
	w.api.Registerer = prometheus.NewRegistry()
	h, err := New(w.api)
	if err != nil {
		t.Fatal(err)
	}
	listener := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &httptest.Server{Listener: listener, Config: NewServer(h, w.api.Log)}
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(w.api.Streams.Drain)
	w.server = server
	client := &http.Client{Transport: &http.Transport{DialContext: listener.dial, DisableKeepAlives: true}}
	slow, quick := w.followBy(client, "/v1/events", w.reader, ""), w.followBy(client, "/v1/events", w.merchant, "")
	w.server = posts
	// The quick one reads all the time: its pipe has no room, and its time for a write ends as well.
	const events = 40
	read := make(chan []string, 1)
	go func() {
		defer close(read)
		read <- quick.whats(events)
	}()
	want := w.fail(events/2, "S-")
	if got := <-read; len(want) != events || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
	open := w.api.Streams.opened.WithLabelValues("/v1/events")
	for testutil.ToFloat64(open) != 1 { // until the slow one's time is over
		if e, err := quick.next(); err != nil || e.comment == "" {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	for err = nil; err == nil; {
		_, err = slow.next()
	}
	if errors.Is(err, io.EOF) {
		t.Error("the slow reader was told of a good end")
	}
}
