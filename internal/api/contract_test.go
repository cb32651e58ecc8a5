package api

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-chi/chi/v5"

	"payments/internal/api/contracttest"
	"payments/internal/payment"
)

// readDocuments are what w.do holds every answer against.
var readDocuments = sync.OnceValues(func() (contracttest.Versions, error) {
	var all [][]byte
	for _, v := range versions {
		all = append(all, v.contract.plain())
	}
	return contracttest.NewVersions(all...)
})

// document is the newest version's.
func document(t *testing.T) *contracttest.Contract {
	t.Helper()
	all, err := readDocuments()
	if err != nil {
		t.Fatal(err)
	}
	return all[NewestVersion()]
}

func TestEveryRouteIsAnOperation(t *testing.T) {
	var served, promised []string
	if err := chi.Walk((&server{}).router(), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method != http.MethodHead { // which every GET has (RFC 9110, 9.3.2)
			served = append(served, method+" "+route)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, o := range document(t).Operations() {
		promised = append(promised, o.Method+" "+o.Path)
	}
	slices.Sort(served)
	slices.Sort(promised)
	for _, s := range served {
		if !slices.Contains(promised, s) {
			t.Errorf("openapi.yaml does not have %s", s)
		}
	}
	for _, p := range promised {
		if !slices.Contains(served, p) {
			t.Errorf("openapi.yaml promises %s, which is not served", p)
		}
	}
}

// What the document says of a route has to be what the table does with it.
func TestTheDocumentSaysWhoNeedsAKeyAndWhatIsInTheQuery(t *testing.T) {
	s := &server{}
	routes := map[string]route{}
	for _, rt := range s.routes() {
		routes[rt.method+" "+rt.pattern] = rt
	}
	for _, o := range document(t).Operations() {
		rt, ok := routes[o.Method+" "+o.Path]
		if !ok {
			continue // told by TestEveryRouteIsAnOperation
		}
		security, overridden := o.Definition["security"].([]any)
		if open := overridden && len(security) == 0; open != (rt.public || rt.signed) {
			t.Errorf("%s %s: open to everybody in the document: %v", o.Method, o.Path, open)
		}
		responses, _ := o.Definition["responses"].(map[string]any)
		// Of a refund the amount is decided about after its payment was seen.
		if _, tells := responses["403"]; tells && rt.hides && o.Definition["operationId"] != "createRefund" {
			t.Errorf("%s %s hides what it names, and the document has a 403", o.Method, o.Path)
		}
		var named []string
		for _, p := range o.Parameters {
			if p["in"] == "query" {
				named = append(named, fmt.Sprint(p["name"]))
			}
		}
		slices.Sort(named)
		if taken := slices.Sorted(slices.Values(rt.parameters)); !rt.ownParameters && !slices.Equal(named, taken) {
			t.Errorf("%s %s: the document has the parameters %v, the route takes %v", o.Method, o.Path, named, taken)
		}
	}
}

func TestEveryCodeIsInTheDocument(t *testing.T) {
	c := document(t)
	for _, code := range problemCodes() {
		if err := c.Validate("/components/schemas/ProblemCode", string(code)); err != nil {
			t.Errorf("openapi.yaml does not have the code %s", code)
		}
		if k := problems[code]; k.meaning == "" || k.remedy == "" {
			t.Errorf("%s says neither what it means nor what to do", code)
		}
	}
	for _, code := range c.Enum("/components/schemas/ProblemCode") {
		if _, ok := problems[payment.Code(code)]; !ok {
			t.Errorf("openapi.yaml has the code %s, which is never given", code)
		}
	}
}

func TestEveryCurrencyIsInTheDocument(t *testing.T) {
	named := document(t).Enum("/components/schemas/Currency")
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, a := range letters {
		for _, b := range letters {
			for _, c := range letters {
				code := string([]rune{a, b, c})
				if _, err := payment.ParseCurrency(code); (err == nil) != slices.Contains(named, code) {
					t.Errorf("%s: payable: %v, in the document: %v", code, err == nil, err != nil)
				}
			}
		}
	}
}

func TestTheDocumentIsServed(t *testing.T) {
	w := newWorld(t)
	a := w.do("GET", "/openapi.yaml", "", "")
	if a.status != 200 || a.body != string(contract) || a.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %s, %d bytes", a.status, a.header.Get("Content-Type"), len(a.body))
	}
	etag := a.header.Get("ETag")
	for given, status := range map[string]int{etag: 304, `"other", W/` + etag: 304, "*": 304, `"other"`: 200, etag[1:]: 200} {
		if a := w.do("GET", "/openapi.yaml", "", "", "If-None-Match", given); a.status != status || status == 304 && a.body != "" {
			t.Errorf("If-None-Match: %s is answered %d, want %d", given, a.status, status)
		}
	}
	w.refused("a parameter", w.do("GET", "/openapi.yaml?x=1", "", ""), 400, payment.CodeInvalid)
}

func TestTheReaderNeedsNothingFromElsewhere(t *testing.T) {
	w := newWorld(t)
	page := w.do("GET", "/docs", "", "")
	policy := page.header.Get("Content-Security-Policy")
	_, nonce, _ := strings.Cut(policy, "script-src 'nonce-")
	nonce, _, _ = strings.Cut(nonce, "'")
	if page.status != 200 || len(nonce) != 32 || strings.Count(policy, "unsafe") != strings.Count(policy, "style-src 'unsafe-inline';") || strings.Contains(policy, "http") || strings.Contains(page.body, "NONCE") {
		t.Errorf("%d, policy %s", page.status, policy)
	}
	if scripts := strings.Count(page.body, "<script"); scripts != 2 || strings.Count(page.body, `<script nonce="`+nonce) != scripts {
		t.Errorf("scripts without the nonce in %s", page.body)
	}
	if again := w.do("GET", "/docs", "", ""); strings.Contains(again.body, nonce) {
		t.Error("two answers have one nonce")
	}
	if a := w.do("GET", "/docs/scalar.js", "", ""); a.status != 200 || len(a.body) < 1<<20 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/javascript") {
		t.Errorf("%d, %d bytes of %s", a.status, len(a.body), a.header.Get("Content-Type"))
	}
	w.refused("no such part", w.do("GET", "/docs/page.html", "", ""), 404, payment.CodeNotFound)
}

func TestTheReaderMakesAFreshValueForEachRequest(t *testing.T) {
	w := newWorld(t)
	const placeholder = "REPLACE-WITH-A-FRESH-VALUE"
	page := w.do("GET", "/docs", "", "").body
	for _, want := range []string{"const placeholder = '" + placeholder + "'", "onBeforeRequest:", "crypto.getRandomValues", "window.finishSnippet = "} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if n := strings.Count(w.do("GET", "/docs/scalar.js", "", "").body, "finishSnippet("); n != 1 {
		t.Errorf("the script calls finishSnippet at %d places, want the one where it prints a snippet", n)
	}
	for _, path := range []string{"/openapi.yaml", "/openapi.yaml?version=2026-11-01"} {
		document := w.do("GET", path, "", "").body
		if strings.Contains(document, "{{") {
			t.Errorf("%s has a variable, which clients send as it is", path)
		}
		// The idempotency key's example, and the order's reference in each example of a payment.
		if n := strings.Count(document, placeholder); n != 4 {
			t.Errorf("%s has the placeholder %d times, want 4", path, n)
		}
	}
}

func TestEveryProblemsTypeResolves(t *testing.T) {
	w := newWorld(t)
	for _, code := range problemCodes() {
		a := w.do("GET", "/problems/"+string(code), "", "")
		if a.status != 200 || a.at(t, "code") != string(code) || a.at(t, "meaning") != problems[code].meaning {
			t.Errorf("%s: %d %s", code, a.status, a.body)
		}
		a = w.do("GET", "/problems/"+string(code), "", "", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
		if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, problems[code].title[:8]) {
			t.Errorf("%s as a page: %d %s", code, a.status, a.body)
		}
	}
	if a := w.do("GET", "/problems", "", ""); len(a.at(t, "data").([]any)) != len(problems) {
		t.Errorf("%s", a.body)
	}
	w.refused("no such problem", w.do("GET", "/problems/of_no_contract", "", ""), 404, payment.CodeNotFound)
}

const errorsPage = "../../docs/errors.md"

func TestTheCatalogOfErrorsIsWritten(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Errors

Every refusal is a problem document (RFC 9457) with a stable ` + "`code`" + `. Branch on the code, not on the text. Its ` + "`type`" + `, /problems/{code}, leads to the
same text on the service itself. Written from internal/api/catalog.go by ` + "`go test ./internal/api -run Catalog -update`" + `.

| status | code | what it means | what to do |
|---|---|---|---|
`)
	for _, code := range problemCodes() {
		k := problems[code]
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", k.status, code, k.meaning, k.remedy)
	}
	if *update {
		if err := os.WriteFile(errorsPage, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(errorsPage); err != nil || string(have) != b.String() {
		t.Errorf("docs/errors.md is not what the code's catalog comes to (-update writes it): %v", err)
	}
}
