package api

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"payments/internal/payment"
)

var (
	guideLinks = regexp.MustCompile(`href="([^"]*)"`)
	anchors    = regexp.MustCompile(`id="([^"]*)"`)
)

// Everything that an integrator needs is reached from /docs, and every link leads somewhere.
func TestTheGuidesAreServed(t *testing.T) {
	w := newWorld(t)
	pages := map[string]string{}
	reader := w.do("GET", "/docs", "", "")
	for _, g := range guides {
		path := "/docs/guides/" + g.Name
		a := w.do("GET", path, "", "")
		if a.status != 200 || a.header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Fatalf("%s: %d %v", path, a.status, a.header)
		}
		pages[path] = a.body
		if !strings.Contains(reader.body, `href="`+path+`"`) {
			t.Errorf("/docs does not lead to %s", path)
		}
	}
	for path, page := range pages {
		for _, m := range guideLinks.FindAllStringSubmatch(page, -1) {
			file, fragment, _ := strings.Cut(m[1], "#")
			switch {
			case strings.HasPrefix(m[1], "https://"), m[1] == "data:,", m[1] == "/docs":
				continue
			case file == "":
				file = path
			}
			to, ok := pages[file]
			if !ok {
				t.Errorf("%s leads to %s, which is not served", path, m[1])
				continue
			}
			ids := anchors.FindAllStringSubmatch(to, -1)
			if fragment != "" && !slices.ContainsFunc(ids, func(id []string) bool { return id[1] == fragment }) {
				t.Errorf("%s leads to %s, which has no such heading", path, m[1])
			}
		}
	}
	for path, words := range map[string][]string{
		"integrate": {"operator", "sk_test_", "pm_card_visa", "pm_card_declined", "pm_card_timeout_lost", "pm_card_slow", "Idempotency-Key", "refunds", "next_cursor", "text/csv", "/v1/events"},
		"webhooks": {
			"webhook-id", "webhook-timestamp", "webhook-signature", "whsec_", "standard-webhooks/libraries/go", "hmac.compare_digest", "timingSafeEqual",
			"Order is not promised", "Twice is possible", "410 Gone",
		},
		"live-updates": {"Last-Event-ID"},
		"errors":       {"idempotency_key_reused"},
	} {
		for _, word := range words {
			if !strings.Contains(pages["/docs/guides/"+path], word) {
				t.Errorf("the guide %s does not have %q", path, word)
			}
		}
	}
	w.refused("no guide", w.do("GET", "/docs/guides/none", "", ""), 404, payment.CodeNotFound)
}

func TestTheRootLeadsToTheDocumentation(t *testing.T) {
	w := newWorld(t)
	client := http.Client{Transport: w.checked(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.URL+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/docs" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
}

// Each type of event has an example, and each example is what the schema says.
func TestEveryEventHasAnExample(t *testing.T) {
	c := document(t)
	for _, e := range payment.EventTypes {
		example, ok := c.Example("/webhooks/event/post/requestBody/content/application~1json/examples/" + string(e))
		if !ok {
			t.Errorf("there is no example of %s", e)
			continue
		}
		if err := c.Validate("/components/schemas/Event", example); err != nil {
			t.Errorf("%s: %v", e, err)
		}
		if example.(map[string]any)["type"] != string(e) {
			t.Errorf("the example of %s is of %v", e, example)
		}
	}
}
