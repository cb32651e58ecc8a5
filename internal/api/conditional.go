package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
)

// ok answers with the resource. A GET gets an entity tag of the answer's own bytes,
// which is sound for whatever they depend on (the row, the page, the caller's role, the version);
// it is weak, since the same answer is also sent compressed. A client that has this
// very answer names it in If-None-Match and gets 304 without a body (RFC 9110, 13.1.2).
// Cache-Control stays no-store: the tag is for the client's own memory of what it was
// told, and not for caches on the way.
func (s *server) ok(ctx context.Context, c *call, v any) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		s.write(ctx, c.w, http.StatusOK, "application/json", v)
		return nil
	}
	body, err := json.Marshal(v, json.Deterministic(true))
	if err == nil {
		body, err = c.w.inVersion(body)
	}
	if err != nil {
		return err
	}
	digest := sha256.Sum256(body)
	tag := `W/"` + base64.RawURLEncoding.EncodeToString(digest[:16]) + `"`
	c.w.Header().Set("ETag", tag)
	if known(c.r.Header.Values("If-None-Match"), tag) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(body) // an error here is the client's connection
	return nil
}

// known compares weakly: a tag is the same with or without its W/.
func known(header []string, tag string) bool {
	for value := range strings.SplitSeq(strings.Join(header, ","), ",") { // our tags have no comma
		value = strings.TrimSpace(value)
		if value == "*" || strings.TrimPrefix(value, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}
