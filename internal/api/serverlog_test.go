package api

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestServerLog_SaysAKindOnceAMinute(t *testing.T) {
	var b bytes.Buffer
	now := time.Now()
	say := slog.NewLogLogger(newServerLog(slog.NewTextHandler(&b, nil), func() time.Time { return now }), slog.LevelWarn).Printf
	for i := range 1000 {
		say("http: TLS handshake error from 192.0.2.%d:%d: EOF", i%250, i)
		say("http: TLS handshake error from [2001:db8::%x]:%d: tls: client offered only unsupported versions: [301]", i, i)
		say("http: URL query contains semicolon, which is no longer a supported separator; parts of the query may be stripped")
		say("http2: server: error reading preface from client 192.0.2.%d:%d: timeout", i%250, i)
	}
	if n := strings.Count(b.String(), "\n"); n != 3 {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
	b.Reset()
	for range 3 {
		say("http: panic serving 192.0.2.1:1: a fault\ngoroutine 1")
	}
	if n := strings.Count(b.String(), "a fault"); n != 3 {
		t.Errorf("%d of 3 panics are logged", n)
	}
	b.Reset()
	now = now.Add(quietFor)
	say("http: TLS handshake error from 192.0.2.1:1: EOF")
	if got := b.String(); !strings.Contains(got, "(and 1999 like it before)") || strings.Count(got, "\n") != 1 {
		t.Errorf("a minute later: %s", got)
	}
}

// Bad connections to a server with TLS cost one line together.
func TestBadTLSConnectionsDoNotFillTheLog(t *testing.T) {
	book := &logbook{}
	log := slog.New(slog.NewTextHandler(book, nil))
	certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	issue(t, certFile, keyFile, 1)
	server := NewServer(http.NotFoundHandler(), log)
	var err error
	if server.TLSConfig, err = NewTLSConfig(certFile, keyFile, log); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- server.ServeTLS(l, "", "") }()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			_, _ = io.ReadAll(c) // until the server has had enough, and has said so
		})
	}
	all.Wait()
	server.Close()
	<-served
	if n := strings.Count(book.String(), "TLS handshake error"); n != 1 {
		t.Errorf("%d lines for 100 bad connections:\n%s", n, book.String())
	}
}
