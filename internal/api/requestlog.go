package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel/trace"

	"payments/internal/payment"
)

const (
	// sampledReads: one successful read in so many is logged, and each that takes longer than slowRead.
	sampledReads = 100
	slowRead     = time.Second
)

// asker is what is known of a request beyond what the recorder sees. It names who asked and for
// which payment, and holds no secret: ids are public, and a path is logged by its pattern.
type asker struct {
	merchant, key, payment string
	trace                  trace.TraceID
}

// by says who asked, once the key is known.
func (a *asker) by(c *call) { a.merchant, a.key = c.principal.MerchantID, c.principal.KeyID }

// of takes the payment of the path. What is no id of a payment could be anything.
func (a *asker) of(c *call) {
	if idPrefix(c.w.route) != payment.PrefixPayment {
		return
	}
	if id := chi.URLParam(c.r, "id"); payment.ValidID(payment.PrefixPayment, id) {
		a.payment = id
	}
}

// logRequest writes the line to which a request id leads. Its trace id is that of what follows
// from the request: the saga and its events.
func (s *server) logRequest(ctx context.Context, method string, rec *recorder, took time.Duration) {
	if !s.Log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	status := max(rec.status, http.StatusOK)
	sampled := s.sampled(method, status, rec.key, took)
	if sampled && s.reads.Add(1)%sampledReads != 1 && !s.Log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	var line [10]slog.Attr
	attrs := append(line[:0], slog.String("method", method), slog.String("route", rec.route), slog.Int("status", status),
		slog.Duration("duration", took), slog.String("request_id", rec.requestID))
	for _, a := range [...]struct{ name, value string }{{"merchant", rec.merchant}, {"key", rec.key}, {"payment", rec.payment}} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, a.value))
		}
	}
	if rec.trace.IsValid() {
		attrs = append(attrs, slog.String("trace_id", rec.trace.String()))
	}
	if sampled {
		attrs = append(attrs, slog.Int("one_of", sampledReads))
	}
	s.Log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// sampled is true of what is quick, frequent and without effect: successful reads, and refusals by
// the rate limit of callers without a key, who could fill the log.
func (s *server) sampled(method string, status int, key string, took time.Duration) bool {
	if status == http.StatusTooManyRequests {
		return key == ""
	}
	return (method == http.MethodGet || method == http.MethodHead) && status < http.StatusBadRequest && took < slowRead
}

// debug tells a decision about a request. It is given no text that a client wrote.
func (s *server) debug(ctx context.Context, rec *recorder, what string, more ...any) {
	if s.Log.Enabled(ctx, slog.LevelDebug) {
		s.Log.DebugContext(ctx, what, append([]any{"request_id", rec.requestID, "route", rec.route}, more...)...) //nolint:sloglint // the callers' constants
	}
}
