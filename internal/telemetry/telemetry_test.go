package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestNewLogger(t *testing.T) {
	var b bytes.Buffer
	log := NewLogger(&b, slog.LevelWarn, "json")
	log.Info("quiet")
	log.Error("loud", "error", errors.New("why"))
	var line map[string]string
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, b.String())
	}
	if line["msg"] != "loud" || line["error"] != "why" || !strings.HasSuffix(line["time"], "Z") {
		t.Errorf("line = %v", line)
	}
	b.Reset()
	NewLogger(&b, slog.LevelDebug, "text").Debug("shown")
	if !strings.Contains(b.String(), "level=DEBUG msg=shown") {
		t.Errorf("text = %q", b.String())
	}
}

func TestDurationsAreReadable(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 999: "999ns", 1234567: "1.23ms", 12345678: "12.3ms", 2500 * time.Millisecond: "2.5s", 999_999_999: "1s",
		90 * time.Second: "1m30s", 3 * time.Hour: "3h0m0s", -2500 * time.Millisecond: "-2.5s",
	} {
		for _, format := range []string{"json", "text"} {
			var b bytes.Buffer
			log := NewLogger(&b, slog.LevelInfo, format)
			log.Info("done", "took", d)
			log.LogAttrs(t.Context(), slog.LevelInfo, "done", slog.Group("inner", slog.Duration("took", d)))
			if line := b.String(); strings.Count(line, want) != 2 {
				t.Errorf("%d as %s: %s, want %s", d, format, line, want)
			}
		}
	}
}
