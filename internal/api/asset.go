package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// asset is a file that stays the same for as long as the program runs. Anybody may read it, so no
// request compresses it: each form is made once, by `make reader` or at the first request for it.
type asset struct {
	contentType, etag string // etag is of the content, without quotes
	plain             func() []byte
	gzip              func() []byte
	brotli            []byte // nil: there is none
}

// newAsset compresses the body at the first request that takes it so.
func newAsset(contentType string, body []byte) asset {
	return asset{contentType, digest(body), func() []byte { return body }, sync.OnceValue(func() []byte {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // fails for an unknown level alone
		_, _ = w.Write(body)                                  // a buffer takes all
		_ = w.Close()
		return b.Bytes()
	}), nil}
}

// packedAsset is compressed already. The plain form is for the few clients that take no other.
func packedAsset(contentType string, gzipped, brotli []byte) asset {
	return asset{contentType, digest(gzipped), sync.OnceValue(func() []byte {
		r, err := gzip.NewReader(bytes.NewReader(gzipped))
		if err != nil {
			panic(fmt.Errorf("embedded asset: %w", err)) // a fault of the build
		}
		plain, err := io.ReadAll(r)
		if err != nil {
			panic(fmt.Errorf("embedded asset: %w", err))
		}
		return plain
	}), func() []byte { return gzipped }, brotli}
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}

// show lets a client keep the asset, and ask each time whether it is still the same. Each form has
// a tag of its own (RFC 9110, 8.8.3).
func (a asset) show(c *call) error {
	offered := []string{"gzip"}
	if a.brotli != nil {
		offered = []string{"br", "gzip"}
	}
	h, coding := c.w.Header(), contentCoding(c.r.Header.Values("Accept-Encoding"), offered...)
	tag := `"` + a.etag + `"`
	if coding != "" {
		tag = `"` + a.etag + "-" + coding + `"`
	}
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", tag)
	if c.r.Method == http.MethodHead { // compressed says it of GET
		h.Add("Vary", "Accept-Encoding")
	}
	if known(c.r.Header.Values("If-None-Match"), tag) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	var body []byte
	switch coding {
	case "br":
		body = a.brotli
	case "gzip":
		body = a.gzip()
	default:
		body = a.plain()
	}
	if coding != "" {
		h.Set("Content-Encoding", coding)
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = c.w.Write(body) // an error here is the client's connection
	return nil
}

// contentCoding is the one of those offered that the client likes best, the first of equals, or
// none (RFC 9110, 12.5.3).
func contentCoding(accepted []string, offered ...string) (best string) {
	weights := map[string]float64{}
	for item := range strings.SplitSeq(strings.Join(accepted, ","), ",") {
		name, parameter, _ := strings.Cut(item, ";")
		weight := 1.0
		if key, value, ok := strings.Cut(parameter, "="); ok && strings.EqualFold(strings.TrimSpace(key), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || !(q >= 0 && q <= 1) { // NaN is neither
				continue
			}
			weight = q
		}
		weights[strings.ToLower(strings.TrimSpace(name))] = weight
	}
	most := 0.0
	for _, name := range offered {
		weight, ok := weights[name]
		if !ok {
			weight = weights["*"]
		}
		if weight > most {
			best, most = name, weight
		}
	}
	return best
}
