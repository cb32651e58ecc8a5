package api

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What anybody may read is sent as it was compressed once: no request pays for that.
func TestAssetsAreCompressedOnce(t *testing.T) {
	w := newWorld(t)
	for path, codings := range map[string][]string{
		"/docs/scalar.js": {"br", "gzip"}, "/openapi.yaml": {"gzip"}, "/openapi.yaml?version=2026-11-01": {"gzip"}, "/docs/LICENSE": {"gzip"},
	} {
		plain := w.do("GET", path, "", "", "Accept-Encoding", "identity")
		if plain.status != 200 || plain.header.Get("Content-Encoding") != "" || plain.header.Get("Content-Length") != strconv.Itoa(len(plain.body)) {
			t.Errorf("%s plain: %d, %d bytes, %v", path, plain.status, len(plain.body), plain.header)
		}
		tags := []string{plain.header.Get("ETag")}
		for _, coding := range codings {
			first := w.do("GET", path, "", "", "Accept-Encoding", coding)
			tag := first.header.Get("ETag")
			if first.status != 200 || first.header.Get("Content-Encoding") != coding || len(first.body) >= len(plain.body) ||
				first.header.Get("Content-Length") != strconv.Itoa(len(first.body)) || !slices.Contains(first.header.Values("Vary"), "Accept-Encoding") ||
				first.header.Get("Cache-Control") != "no-cache" || slices.Contains(tags, tag) || strings.HasPrefix(tag, "W/") {
				t.Errorf("%s as %s: %d, %d bytes, %v", path, coding, first.status, len(first.body), first.header)
			}
			tags = append(tags, tag)
			// Compressed for each request, it would differ by the jitter of other answers.
			if again := w.do("GET", path, "", "", "Accept-Encoding", coding); again.body != first.body {
				t.Errorf("%s as %s: two answers differ", path, coding)
			}
			if head := w.do("HEAD", path, "", "", "Accept-Encoding", coding); head.status != 200 || head.header.Get("ETag") != tag ||
				head.header.Get("Content-Length") != first.header.Get("Content-Length") || head.header.Get("Content-Encoding") != coding {
				t.Errorf("HEAD %s as %s: %d %v", path, coding, head.status, head.header)
			}
			if a := w.do("GET", path, "", "", "Accept-Encoding", coding, "If-None-Match", tag); a.status != http.StatusNotModified || a.body != "" || a.header.Get("ETag") != tag {
				t.Errorf("%s as %s, known: %d %v", path, coding, a.status, a.header)
			}
			if a := w.do("GET", path, "", "", "Accept-Encoding", coding, "If-None-Match", tags[0]); a.status != 200 {
				t.Errorf("%s as %s, known in another form: %d", path, coding, a.status)
			}
			if coding != "gzip" {
				continue
			}
			r, err := gzip.NewReader(strings.NewReader(first.body))
			if err != nil {
				t.Fatal(err)
			}
			if unzipped, err := io.ReadAll(r); err != nil || string(unzipped) != plain.body {
				t.Errorf("%s: %d bytes unzipped of %d, %v", path, len(unzipped), len(plain.body), err)
			}
		}
	}
	if a := w.do("GET", "/docs/scalar.js", "", "", "Accept-Encoding", "br"); !bytes.Equal([]byte(a.body), readerScriptBrotli) {
		t.Error("the script is not sent as it is embedded")
	}
}

func TestContentCoding(t *testing.T) {
	for header, want := range map[string]string{
		"": "", "gzip": "gzip", "br": "br", "gzip, br": "br", "gzip;q=1.0, br;q=0.5": "gzip", "br;q=0, gzip": "gzip", "br;q=0,gzip;q=0": "",
		"identity": "", "*": "br", "*;q=0": "", "*, br;q=0": "gzip", "GZIP": "gzip", "deflate": "", "gzip;q=x": "", "gzip; q=0.001": "gzip",
		"gzip;q=2": "", ",,": "", "x-gzip": "", "gzip;q=NaN": "",
	} {
		if got := contentCoding([]string{header}, "br", "gzip"); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
	if got := contentCoding([]string{"br"}, "gzip"); got != "" {
		t.Errorf("not offered, and %q is given", got)
	}
	if got := contentCoding([]string{"deflate", "gzip"}, "br", "gzip"); got != "gzip" {
		t.Errorf("of two header lines: %q", got)
	}
}
