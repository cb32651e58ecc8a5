package api

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"payments/internal/payment"
)

// problemResource is what a problem's type leads to.
type problemResource struct {
	Object  string       `json:"object"`
	Code    payment.Code `json:"code"`
	Status  int          `json:"status"`
	Title   string       `json:"title"`
	Meaning string       `json:"meaning"`
	Remedy  string       `json:"remedy"`
}

func newProblemResource(code payment.Code) problemResource {
	k := problems[code]
	return problemResource{"problem", code, k.status, k.title, k.meaning, k.remedy}
}

var problemPage = template.Must(template.New("problems").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Problems of the payments API</title></head>
<body><p><a href="/problems">All problems</a> · <a href="/docs">The API</a></p>
{{range .}}<h2 id="{{.Code}}"><a href="/problems/{{.Code}}">{{.Code}}</a></h2>
<p>{{.Status}} · <strong>{{.Title}}</strong></p>
<p>{{.Meaning}}</p>
<p><em>What to do:</em> {{.Remedy}}</p>
{{end}}</body></html>
`))

func (s *server) listProblems(ctx context.Context, c *call) error {
	codes := problemCodes()
	items := make([]problemResource, len(codes))
	for i, code := range codes {
		items[i] = newProblemResource(code)
	}
	return s.showProblems(ctx, c, newList(items), items...)
}

func (s *server) getProblem(ctx context.Context, c *call) error {
	codes := problemCodes()
	i := slices.Index(codes, payment.Code(chi.URLParam(c.r, "code")))
	if i < 0 {
		return payment.Errorf(payment.CodeNotFound, "There is no such problem.")
	}
	item := newProblemResource(codes[i])
	return s.showProblems(ctx, c, item, item)
}

// showProblems gives a browser, which asks for HTML first, a page.
func (s *server) showProblems(ctx context.Context, c *call, v any, items ...problemResource) error {
	c.w.Header().Add("Vary", "Accept")
	if !strings.HasPrefix(c.r.Header.Get("Accept"), "text/html") {
		return s.ok(ctx, c, v)
	}
	var page bytes.Buffer
	if err := problemPage.Execute(&page, items); err != nil {
		return fmt.Errorf("write the page of problems: %w", err)
	}
	c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = page.WriteTo(c.w) // an error here is the client's connection
	return nil
}
