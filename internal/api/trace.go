package api

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// traceparent is the W3C Trace Context (Recommendation of 2021-11-23, section 3.2)
// that the saga and the events of this request carry on: the caller's trace, if it
// sent one that can be read, with a parent id of our own; else a trace of our own.
func (s *server) traceparent(r *http.Request) string {
	trace, flags := s.random(16), "00"
	if given := r.Header.Values("Traceparent"); len(given) == 1 {
		if t, f, ok := parseTraceparent(given[0]); ok {
			trace, flags = t, f
		}
	}
	return "00-" + trace + "-" + s.random(8) + "-" + flags
}

// random panics without randomness, as identifiers do.
func (s *server) random(n int) string {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.IDs.Random, b); err != nil {
		panic(fmt.Sprintf("api: no randomness for a trace: %v", err))
	}
	return hex.EncodeToString(b)
}

// parseTraceparent takes a later version for what it shares with 00.
func parseTraceparent(s string) (trace, flags string, ok bool) {
	parts := strings.Split(s, "-")
	if len(parts) < 4 || len(parts) > 4 && parts[0] == "00" {
		return "", "", false
	}
	for i, length := range []int{2, 32, 16, 2} {
		if len(parts[i]) != length || strings.Trim(parts[i], "0123456789abcdef") != "" {
			return "", "", false
		}
	}
	if parts[0] == "ff" || strings.Trim(parts[1], "0") == "" || strings.Trim(parts[2], "0") == "" {
		return "", "", false
	}
	return parts[1], parts[3], true
}
