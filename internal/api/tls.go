package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is read from its files again when they have changed, so that a
// renewed one needs no restart.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	stamps [2]stamp // of the files when they were last read
	pair   *tls.Certificate
}

// stamp tells one state of a file from the next.
type stamp struct {
	modified time.Time
	size     int64
}

// NewTLSConfig is for the public address. Its error completes a sentence that
// begins with the variables' names.
func NewTLSConfig(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	var err error
	if c.stamps, err = c.look(); err == nil {
		c.pair, err = c.load()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(hello.Context()), nil },
	}, nil
}

// current looks at the files at each handshake, which costs far more than that.
// While they do not fit together, as between the renewal of the one and of the
// other, the last good pair stands.
func (c *certificate) current(ctx context.Context) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.look()
	if err == nil && now == c.stamps {
		return c.pair
	}
	c.stamps = now // said once for each state of the files
	var pair *tls.Certificate
	if err == nil {
		pair, err = c.load()
	}
	if err != nil {
		c.log.ErrorContext(ctx, "the changed TLS certificate cannot be used, the one before it stands", "error", err)
		return c.pair
	}
	c.log.InfoContext(ctx, "the TLS certificate was read again", "not_after", pair.Leaf.NotAfter)
	c.pair = pair
	return pair
}

func (c *certificate) look() (s [2]stamp, err error) {
	for i, path := range []string{c.certFile, c.keyFile} {
		f, err := os.Stat(path)
		if err != nil {
			return [2]stamp{}, err
		}
		s[i] = stamp{f.ModTime(), f.Size()}
	}
	return s, nil
}

func (c *certificate) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, err
	}
	return &pair, nil
}
