package api

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// quietFor is how long a complaint of the same kind is only counted.
	quietFor = time.Minute
	maxKinds = 64
)

// serverLog takes what net/http says of connections and requests. Most of it anybody can cause, a
// line with each connection: a failed TLS handshake, a semicolon in a query. So each kind is logged
// once a minute, with how many there were since the line before. A panic is logged each time.
type serverLog struct {
	slog.Handler
	now func() time.Time

	mu    sync.Mutex
	kinds map[string]*complaint
}

type complaint struct {
	logged  time.Time
	skipped int
}

// NewServerLog is the handler of the logger that http.Server.ErrorLog is made of.
func NewServerLog(l *slog.Logger) slog.Handler { return newServerLog(l.Handler(), time.Now) }

func newServerLog(h slog.Handler, now func() time.Time) *serverLog {
	return &serverLog{Handler: h, now: now, kinds: map[string]*complaint{}}
}

// Handle takes one message, which has no attributes.
func (s *serverLog) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "http: panic") {
		r.Level = slog.LevelError
		return s.Handler.Handle(ctx, r)
	}
	skipped, ok := s.due(kindOf(r.Message))
	if !ok {
		return nil
	}
	if skipped > 0 {
		r.Message += fmt.Sprintf(" (and %d like it before)", skipped)
	}
	return s.Handler.Handle(ctx, r)
}

// due reports whether a complaint of the kind is to be logged, and how many were not since.
func (s *serverLog) due(kind string) (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, now := s.kinds[kind], s.now()
	if c == nil {
		if len(s.kinds) >= maxKinds { // no caller makes kinds, so it does not come to that
			clear(s.kinds)
		}
		c = &complaint{}
		s.kinds[kind] = c
	} else if now.Sub(c.logged) < quietFor {
		c.skipped++
		return 0, false
	}
	skipped, c.logged, c.skipped = c.skipped, now, 0
	return skipped, true
}

// kindOf is what a message says before it comes to the peer and the reason.
func kindOf(message string) string {
	for _, end := range []string{" from ", " client ", ";"} {
		message, _, _ = strings.Cut(message, end)
	}
	return message[:min(len(message), 60)]
}
