// Package telemetry sets up what the service says about itself: its log and its traces. Metrics
// stand with what they measure, on an injected registerer.
//
// Of the service it imports text.
package telemetry

import (
	"io"
	"log/slog"

	"payments/internal/text"
)

// NewLogger writes one record a line, as text when format is "text" and as JSON
// otherwise. Times are UTC, so that lines of several machines sort together.
func NewLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		}
		return bounded(a)
	}}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// maxLogged is the length of one logged text, in characters: a stack fits.
const maxLogged = 16 << 10

// bounded keeps what others wrote, in errors above all, from filling the log. Both handlers
// quote control characters and what is no UTF-8.
func bounded(a slog.Attr) slog.Attr {
	s := ""
	switch v := a.Value.Any().(type) {
	case string:
		s = v
	case error:
		s = v.Error()
	}
	if len(s) > maxLogged {
		a.Value = slog.StringValue(text.Block(s, maxLogged))
	}
	return a
}
