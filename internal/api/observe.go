package api

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/payment"
)

const maxRequestID = 128

type metrics struct {
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	limited    *prometheus.CounterVec
	deprecated *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_http_requests_total", Help: "Requests answered, by method, pattern of the route, and status.",
		}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "payments_http_request_seconds", Help: "Time to answer, a preferred wait included; of an event stream, until it begins.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"method", "route"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_http_rate_limited_total", Help: "Requests answered 429, by whose budget it was: an API key's or, of unauthenticated callers, a remote address's or a key id's.",
		}, []string{"by"}),
		deprecated: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_http_deprecated_requests_total", Help: "Requests that were answered with Deprecation, by version of the API, method, and pattern of the route.",
		}, []string{"version", "method", "route"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.limited, m.deprecated} {
		if err := reg.Register(c); err != nil {
			return metrics{}, fmt.Errorf("register metric: %w", err)
		}
	}
	return m, nil
}

// recorder knows what was answered. route is a pattern, never a path, so that
// clients cannot make metrics grow.
type recorder struct {
	http.ResponseWriter
	requestID, route string
	status           int       // 0 until the header is written
	answered         time.Time // when the header was written
	streams          bool      // the answer goes on for as long as it likes
	version          int       // the number of the version that is answered in; 0 is the newest
	asker
}

// recorderOf holds in every handler below observe.
func recorderOf(w http.ResponseWriter) *recorder { return w.(*recorder) } //nolint:errcheck,forcetypeassert // a bug if not

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status, r.answered = status, time.Now()
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status, r.answered = http.StatusOK, time.Now()
	}
	return r.ResponseWriter.Write(b)
}

// secure sets the headers of every answer. They are for a browser that somebody
// leads here: nothing is sniffed, framed, run, cached, or told to another origin. A
// handler whose answer is a page sets a Content-Security-Policy of its own.
func secure(h http.Header, r *http.Request) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	if r.TLS != nil { // in plain text it would mean nothing (RFC 6797, 7.2)
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// observe is around every request: its id, the headers of every answer, the
// metrics, its line in the log, and the end of a panic.
func (s *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, requestID: s.requestID(r), route: "unmatched"}
		rec.Header().Set("Request-Id", rec.requestID)
		rec.Header().Set(headerVersion, NewestVersion()) // until chooseVersion
		rec.Header().Add("Vary", headerVersion)
		secure(rec.Header(), r)
		defer func() {
			p := recover()
			aborted := p == http.ErrAbortHandler //nolint:errorlint // a panic's value, compared as net/http does
			if p != nil && !aborted {
				s.panicked(r.Context(), rec, p)
			}
			method := knownMethod(r.Method)
			s.metrics.requests.WithLabelValues(method, rec.route, strconv.Itoa(max(rec.status, http.StatusOK))).Inc()
			took := time.Since(start)
			if rec.streams {
				took = rec.answered.Sub(start)
			}
			s.metrics.seconds.WithLabelValues(method, rec.route).Observe(took.Seconds())
			s.logRequest(r.Context(), method, rec, time.Since(start))
			if aborted {
				panic(p)
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

func (s *server) panicked(ctx context.Context, rec *recorder, p any) {
	s.Log.ErrorContext(ctx, "handler panicked", "request_id", rec.requestID, "route", rec.route,
		"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if rec.status == 0 {
		s.problem(ctx, rec, errInternal)
	}
}

// requestID takes the client's when it is 1 to 128 visible ASCII characters.
func (s *server) requestID(r *http.Request) string {
	given := r.Header.Values("Request-Id")
	if len(given) != 1 || given[0] == "" || len(given[0]) > maxRequestID {
		return s.IDs.New(payment.PrefixRequest)
	}
	for _, b := range []byte(given[0]) {
		if b < 0x21 || b > 0x7e {
			return s.IDs.New(payment.PrefixRequest)
		}
	}
	return given[0]
}

func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}
