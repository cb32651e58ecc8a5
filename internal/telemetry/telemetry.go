// Package telemetry sets up what the service says about itself: its log and its traces. Metrics
// stand with what they measure, on an injected registerer.
//
// It imports no other package of the service.
package telemetry

import (
	"io"
	"log/slog"
)

// NewLogger writes one record a line, as text when format is "text" and as JSON
// otherwise. Times are UTC, so that lines of several machines sort together.
func NewLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		}
		return a
	}}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
