package telemetry

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNoLoggedTextIsLongOrBreaksTheLine(t *testing.T) {
	babble := strings.Repeat("verf\xfcgbar\x00\n", 1<<19)
	for _, format := range []string{"json", "text"} {
		var b bytes.Buffer
		NewLogger(&b, slog.LevelInfo, format).Error(babble, "error", errors.New(babble), "answer", babble) //nolint:sloglint // the message is what is tested
		if b.Len() > 3*8*maxLogged || strings.Count(b.String(), "\n") != 1 || !utf8.ValidString(b.String()) || bytes.Contains(b.Bytes(), []byte{0}) {
			t.Errorf("%s: %d bytes, %d lines: %.200q", format, b.Len(), strings.Count(b.String(), "\n"), b.String())
		}
	}
}
