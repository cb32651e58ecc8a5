package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/loop"
)

func TestTheAdminAddressAnswersItsOwnNamesAlone(t *testing.T) {
	h := NewAdmin(AdminConfig{
		Gatherer: prometheus.NewRegistry(), Monitor: loop.NewMonitor(time.Now, prometheus.NewRegistry()),
		Database: func(context.Context) error { return nil }, Log: slog.New(slog.DiscardHandler), Hosts: []string{"service", "payments.example"},
	})
	for host, status := range map[string]int{
		"127.0.0.1:8081": 200, "127.0.0.1": 200, "[::1]:8081": 200, "[::1]": 200, "10.1.2.3:1": 200, "localhost:8081": 200, "LocalHost": 200, "localhost.": 200,
		"service:8081": 200, "service": 200, "Payments.Example": 200, "": 200,
		"evil.example": 421, "evil.example:8081": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "service.evil.example": 421,
		"example": 421, "127.0.0.1@evil.example": 421, "evil.example:127.0.0.1": 421,
	} {
		for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/cmdline"} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
			r.Host = host
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != status {
				t.Errorf("%s of %q: %d, want %d", path, host, w.Code, status)
			}
		}
	}
}
