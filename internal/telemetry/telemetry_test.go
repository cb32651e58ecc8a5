package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
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
