package api

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	gmtext "github.com/yuin/goldmark/text"

	"payments/docs"
	"payments/internal/payment"
)

// guides are the pages of docs/ that /docs leads to, in the order in which they are read. The
// titles are those of the links.
var guides = []guide{
	{"integrate", "Integrate"},
	{"queries", "Lists"},
	{"live-updates", "Live updates"},
	{"webhooks", "Webhooks"},
	{"errors", "Errors"},
}

type guide struct{ Name, Title string }

//go:embed reader/guide.html
var guidePage string

// guideAssets are made by the first request for one.
var guideAssets = sync.OnceValues(func() (map[string]asset, error) {
	page, err := template.New("guide").Parse(guidePage)
	if err != nil {
		return nil, err
	}
	all := make(map[string]asset, len(guides))
	for _, g := range guides {
		source, err := fs.ReadFile(docs.Guides, g.Name+".md")
		if err != nil {
			return nil, err
		}
		content, err := renderGuide(source)
		if err != nil {
			return nil, fmt.Errorf("guide %s: %w", g.Name, err)
		}
		var b bytes.Buffer
		if err := page.Execute(&b, struct {
			guide
			Guides  []guide
			Content template.HTML
		}{g, guides, content}); err != nil {
			return nil, fmt.Errorf("guide %s: %w", g.Name, err)
		}
		all[g.Name] = newAsset("text/html; charset=utf-8", b.Bytes())
	}
	return all, nil
})

// renderGuide makes HTML of a page. Links to other guides lead to where they are served; what is
// not served is no link. Tables and blocks of code can be scrolled by keyboard.
func renderGuide(source []byte) (template.HTML, error) {
	markdown := goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	document := markdown.Parser().Parse(gmtext.NewReader(source))
	var links []*ast.Link
	err := ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if l, ok := n.(*ast.Link); ok && entering {
			links = append(links, l)
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if to := guideLink(string(l.Destination)); to != "" {
			l.Destination = []byte(to)
			continue
		}
		for child := l.FirstChild(); child != nil; child = l.FirstChild() {
			l.Parent().InsertBefore(l.Parent(), l, child)
		}
		l.Parent().RemoveChild(l.Parent(), l)
	}
	var b bytes.Buffer
	if err := markdown.Renderer().Render(&b, source, document); err != nil {
		return "", err
	}
	html := strings.NewReplacer("<pre>", `<pre tabindex="0">`, "<table>", `<div class="wide" tabindex="0" role="group" aria-label="Table"><table>`, "</table>", "</table></div>").Replace(b.String())
	return template.HTML(html), nil //nolint:gosec // of our own pages, without raw HTML
}

// guideLink is where a link of a page leads, or empty where that is not served.
func guideLink(to string) string {
	if strings.HasPrefix(to, "#") || strings.HasPrefix(to, "https://") {
		return to
	}
	file, fragment, _ := strings.Cut(to, "#")
	for _, g := range guides {
		if path.Clean(file) == g.Name+".md" {
			if fragment != "" {
				fragment = "#" + fragment
			}
			return "/docs/guides/" + g.Name + fragment
		}
	}
	return ""
}

func (s *server) getGuide(_ context.Context, c *call) error {
	all, err := guideAssets()
	if err != nil {
		return err
	}
	a, ok := all[chi.URLParam(c.r, "guide")]
	if !ok {
		return payment.Errorf(payment.CodeNotFound, "There is no such guide.")
	}
	c.w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	return a.show(c)
}

// getRoot leads who opens the address in a browser to the reader.
func (s *server) getRoot(_ context.Context, c *call) error {
	c.w.Header().Set("Location", "/docs")
	c.w.WriteHeader(http.StatusSeeOther)
	return nil
}
