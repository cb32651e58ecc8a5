package api

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"

	"payments/internal/payment"
)

// contract is what clients are promised. Tests hold every route, every answer and
// every problem code against it.
//
//go:embed openapi.yaml
var contract []byte

// contract20261101 is the one before: written from the document and what
// versions/2026-11-01.patch.yaml takes back of it.
//
//go:embed versions/2026-11-01.yaml
var contract20261101 []byte

// readerScript and readerLicense are @scalar/api-reference 1.72.1 from npm,
// dist/browser/standalone.js, as it was published; reader/README.md says how to renew it.
var (
	//go:embed reader/scalar.js
	readerScript []byte
	//go:embed reader/LICENSE
	readerLicense []byte
	//go:embed reader/page.html
	readerPage string
)

// asset is a file that stays the same as long as the program does.
type asset struct {
	contentType, etag string
	body              []byte
}

func newAsset(contentType string, body []byte) asset {
	sum := sha256.Sum256(body)
	return asset{contentType, `"` + hex.EncodeToString(sum[:16]) + `"`, body}
}

// readerAssets are made by the first request for one.
var readerAssets = sync.OnceValue(func() map[string]asset {
	return map[string]asset{
		"scalar.js": newAsset("text/javascript; charset=utf-8", withSnippetHook(readerScript)),
		"LICENSE":   newAsset("text/plain; charset=utf-8", readerLicense),
	}
})

// snippetPrinter is where the reader's script prints a request in a language (target) for a
// library of it (client). The names are the minifier's.
var snippetPrinter = regexp.MustCompile(`let (\w+)=\w+\(\)\.print\((\w+),(\w+),\w+\);return `)

// withSnippetHook lets page.html change the snippets. The script has no option for it.
func withSnippetHook(script []byte) []byte {
	return snippetPrinter.ReplaceAll(script, []byte(`${0}$1=$1&&finishSnippet($1,$2,$3),`))
}

// show lets a client keep the asset, and ask each time whether it is still the same.
func (a asset) show(c *call) error {
	c.w.Header().Set("Cache-Control", "no-cache")
	c.w.Header().Set("ETag", a.etag)
	if known(c.r.Header.Values("If-None-Match"), a.etag) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	c.w.Header().Set("Content-Type", a.contentType)
	_, _ = c.w.Write(a.body) // an error here is the client's connection
	return nil
}

// getContract gives the document of the version that the query names, or else the header.
func (s *server) getContract(_ context.Context, c *call) error {
	number := c.w.version
	if c.query.Has("version") {
		if number = numberOf(c.query.Get("version")); number < 0 {
			return queryError("/query/version", "version_unknown", "must be one of "+strings.Join(Versions(), ", "))
		}
	}
	return versions[number].contract.show(c)
}

// getReader is a page that runs the one script of ours, sends requests to us alone
// and fetches nothing from elsewhere. The script writes style elements without a
// nonce, so styles may stand inline; no style can send anything anywhere.
func (s *server) getReader(_ context.Context, c *call) error {
	random := make([]byte, 16)
	if _, err := io.ReadFull(s.IDs.Random, random); err != nil {
		return fmt.Errorf("make a nonce: %w", err)
	}
	nonce := hex.EncodeToString(random)
	c.w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+
		"'; style-src 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = strings.NewReplacer("NONCE", nonce).WriteString(c.w, readerPage)
	return nil
}

func (s *server) getReaderAsset(_ context.Context, c *call) error {
	a, ok := readerAssets()[chi.URLParam(c.r, "asset")]
	if !ok {
		return payment.Errorf(payment.CodeNotFound, "There is nothing at this path.")
	}
	return a.show(c)
}
