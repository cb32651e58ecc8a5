package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// issue writes a certificate of 127.0.0.1 with the serial number, and its key. A
// changed file is given a later time, since a clock can be coarser than a test is fast.
func issue(t *testing.T, certFile, keyFile string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		replace(t, path, pem.EncodeToMemory(block), serial)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func replace(t *testing.T, path string, content []byte, serial int64) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000+serial, 0)
	if err := os.Chtimes(path+".new", at, at); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// met is what a client met.
type met struct {
	status      int
	proto, hsts string
	tls         tls.ConnectionState
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	var log logbook
	logger := slog.New(slog.NewTextHandler(&log, nil))
	if _, err := NewTLSConfig(certFile, keyFile, logger); err == nil {
		t.Fatal("files that are not there are accepted")
	}
	first := issue(t, certFile, keyFile, 1)
	config, err := NewTLSConfig(certFile, keyFile, logger)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.api.Registerer = prometheus.NewRegistry()
	h, err := New(w.api)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(h, logger)
	server.TLSConfig = config
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- server.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	// Each asks on a connection of its own.
	ask := func(trusted *x509.Certificate, most uint16) (m met, err error) {
		t.Helper()
		pool := x509.NewCertPool()
		pool.AddCert(trusted)
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, MaxVersion: most, MinVersion: tls.VersionTLS10}}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+l.Addr().String()+"/v1/payments", strings.NewReader(good))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Authorization": {"Bearer " + w.merchant}, "Content-Type": {"application/json"}, "Idempotency-Key": {"k"}}
		resp, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			return met{}, err
		}
		defer resp.Body.Close()
		return met{resp.StatusCode, resp.Proto, resp.Header.Get("Strict-Transport-Security"), *resp.TLS}, nil
	}
	serial := func(what string, trusted *x509.Certificate, want int64) {
		t.Helper()
		got, err := ask(trusted, 0)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got.status != http.StatusAccepted || got.proto != "HTTP/2.0" || got.hsts != "max-age=31536000" {
			t.Errorf("%s: %s %d, Strict-Transport-Security %q", what, got.proto, got.status, got.hsts)
		}
		if n := got.tls.PeerCertificates[0].SerialNumber.Int64(); n != want {
			t.Errorf("%s: certificate %d is shown, want %d", what, n, want)
		}
	}
	serial("the first", first, 1)
	if got, err := ask(first, tls.VersionTLS12); err != nil || got.tls.Version != tls.VersionTLS12 {
		t.Errorf("TLS 1.2: %v", err)
	}
	if _, err := ask(first, tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	second := issue(t, certFile, keyFile, 2)
	serial("the second", second, 2)
	if _, err := ask(first, 0); err == nil {
		t.Error("the first certificate is still shown")
	}
	// Half of a renewal, and then a file that is gone: the last good one stands, and it is said once.
	replace(t, certFile, []byte("half"), 3)
	serial("a broken file", second, 2)
	serial("a broken file again", second, 2)
	if n := strings.Count(log.String(), "cannot be used"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	serial("a missing file", second, 2)
	serial("the third", issue(t, certFile, keyFile, 4), 4)
}
