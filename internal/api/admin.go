package api

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/pprof" // registers on the default mux too, which nobody serves
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"payments/internal/loop"
)

const pingTimeout = 2 * time.Second

// AdminConfig of the admin address; every member but Loops and Hosts is required.
type AdminConfig struct {
	Gatherer prometheus.Gatherer
	Monitor  *loop.Monitor
	// Database is an error unless the database answers and takes writes.
	Database func(context.Context) error
	// Loops says that a dead loop makes the process not ready. Without it a dead loop is
	// only named: a process that serves requests needs none.
	Loops bool
	Log   *slog.Logger
	Hosts []string // names that it may be asked by, besides addresses and localhost (OnlyHosts)
}

// NewAdmin makes the handler of the admin address, which has no authentication
// and is not for the public: /metrics, /healthz (the process lives), /readyz
// (the database answers and takes writes and, with Loops, every loop turns), /debug/pprof.
func NewAdmin(c AdminConfig) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelError),
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, health{Status: "alive"})
	})
	mux.HandleFunc("GET /readyz", c.ready)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	named := OnlyHosts(c.Hosts, mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header(), r)
		named.ServeHTTP(w, r)
	})
}

type health struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"` // why the process is not ready
	// Degraded is what does not work although the process is ready.
	Degraded []string `json:"degraded,omitempty"`
}

func (c AdminConfig) ready(w http.ResponseWriter, r *http.Request) {
	var reasons, degraded, dead []string
	stale := c.Monitor.Stale()
	for _, name := range slices.Sorted(maps.Keys(stale)) {
		dead = append(dead, fmt.Sprintf("The loop %s has not turned for %s.", name, stale[name].Round(time.Second)))
	}
	if c.Loops {
		reasons = dead
	} else {
		degraded = dead
	}
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	if err := c.Database(ctx); err != nil { // its text may name the role and the host
		c.Log.WarnContext(ctx, "readiness: the database takes no writes", "error", err)
		reasons = append(reasons, "The database does not answer, or takes no writes.")
	}
	if len(reasons) > 0 {
		writeHealth(w, http.StatusServiceUnavailable, health{"not_ready", reasons, degraded})
		return
	}
	writeHealth(w, http.StatusOK, health{Status: "ready", Degraded: degraded})
}

func writeHealth(w http.ResponseWriter, status int, h health) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.MarshalWrite(w, h) // an error here is the client's connection
}
