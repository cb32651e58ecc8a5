// Package telemetry sets up what the service says about itself: its log and its traces. Metrics
// stand with what they measure, on an injected registerer.
//
// Of the service it imports text.
package telemetry

import (
	"io"
	"log/slog"
	"time"

	"payments/internal/text"
)

// NewLogger writes one record a line, as text when format is "text" and as JSON
// otherwise. Times are UTC, so that lines of several machines sort together, and a
// duration is written as a person reads it: 2.5s, 12.3ms.
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

// readable has three digits that count, which is more than a clock of another machine can confirm.
func readable(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 || d/unit <= -1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// maxLogged is the length of one logged text, in characters: a stack fits.
const maxLogged = 16 << 10

// bounded keeps what others wrote, in errors above all, from filling the log. Both handlers
// quote control characters and what is no UTF-8.
func bounded(a slog.Attr) slog.Attr {
	s := ""
	switch a.Value.Kind() { //nolint:exhaustive // the others are short
	case slog.KindString: // without an allocation
		s = a.Value.String()
	case slog.KindDuration:
		a.Value = slog.StringValue(readable(a.Value.Duration()).String())
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok {
			s = err.Error()
		}
	}
	if len(s) > maxLogged {
		a.Value = slog.StringValue(text.Block(s, maxLogged))
	}
	return a
}
