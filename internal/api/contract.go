package api

import (
	"context"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
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

// What /docs consists of. The script is @scalar/api-reference from npm with a hook for page.html,
// and `make reader` has compressed it (reader/README.md).
var (
	//go:embed reader/scalar.js.gz
	readerScriptGzip []byte
	//go:embed reader/scalar.js.br
	readerScriptBrotli []byte
	//go:embed reader/LICENSE
	readerLicense []byte
	//go:embed reader/page.html
	readerPage string
)

// readerAssets are made by the first request for one.
var readerAssets = sync.OnceValue(func() map[string]asset {
	return map[string]asset{
		"scalar.js": packedAsset("text/javascript; charset=utf-8", readerScriptGzip, readerScriptBrotli),
		"LICENSE":   newAsset("text/plain; charset=utf-8", readerLicense),
	}
})

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
	_, _ = strings.NewReplacer("NONCE", nonce, "GUIDES", guideItems()).WriteString(c.w, readerPage)
	return nil
}

// guideItems are links to the guides, above the reader.
func guideItems() string {
	var b strings.Builder
	for _, g := range guides {
		b.WriteString(`<li><a href="/docs/guides/` + g.Name + `">` + g.Title + `</a></li>`)
	}
	return b.String()
}

func (s *server) getReaderAsset(_ context.Context, c *call) error {
	a, ok := readerAssets()[chi.URLParam(c.r, "asset")]
	if !ok {
		return payment.Errorf(payment.CodeNotFound, "There is nothing at this path.")
	}
	return a.show(c)
}
