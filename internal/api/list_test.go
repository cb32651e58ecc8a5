package api

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

// placedAs posts and projects payments with these order references.
func (w *world) placedAs(references ...string) {
	w.t.Helper()
	for _, r := range references {
		if a := w.post(w.merchant, strings.Replace(good, "A-1001", r, 1), key(fmt.Sprintf("key-%x", r))...); a.status != 202 {
			w.t.Fatalf("%d %s", a.status, a.body)
		}
	}
	w.project()
}

func TestAPagesLength(t *testing.T) {
	s := &server{}
	for query, want := range map[string]int{"": 20, "limit=1": 1, "limit=100": 100, "limit=0": 0, "limit=101": 0, "limit=+1": 0, "limit=": 0} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, n, err := s.page(&call{query: values}, payment.PrefixKey); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", query, n, err)
		}
	}
}

func TestACursorHoldsForItsListAndCallerOnly(t *testing.T) {
	w := newWorld(t)
	w.placedAs("A-1", "A-2", "A-3")
	cursor := w.do("GET", "/v1/payments?currency=EUR&sort=-amount&limit=1", w.merchant, "").at(t, "next_cursor").(string)
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{"&limit=2", "&limit=1&count=estimated", "&expand=refunds"} {
		if a := w.do("GET", "/v1/payments?sort=-amount&currency=EUR"+same+"&cursor="+cursor, w.merchant, ""); a.status != 200 {
			t.Errorf("%s: %d %s", same, a.status, a.body)
		}
	}
	refused := func(what, path, as string) {
		t.Helper()
		got := w.refused(what, w.do("GET", path, as, ""), 400, payment.CodeInvalid)
		if len(got) != 1 || got[0] != "/query/cursor cursor_invalid" {
			t.Errorf("%s: %q", what, got)
		}
	}
	list := "/v1/payments?currency=EUR&sort=-amount&cursor="
	refused("another filter", strings.Replace(list, "EUR", "USD", 1)+cursor, w.merchant)
	refused("one filter more", list+cursor+"&status=failed", w.merchant)
	refused("another order", strings.Replace(list, "-amount", "amount", 1)+cursor, w.merchant)
	refused("no order", "/v1/payments?currency=EUR&cursor="+cursor, w.merchant)
	refused("another merchant", list+cursor, w.other)
	refused("who sees all", list+cursor, w.operator)
	refused("another list", "/v1/webhook_endpoints?cursor="+cursor, w.merchant)
	refused("empty", list, w.merchant)
	refused("padded", list+cursor+"%3D", w.merchant)
	for i := range raw {
		changed := append([]byte{}, raw...)
		changed[i] ^= 1
		refused(fmt.Sprintf("byte %d changed", i), list+base64.RawURLEncoding.EncodeToString(changed), w.merchant)
		refused(fmt.Sprintf("cut at %d", i), list+base64.RawURLEncoding.EncodeToString(raw[:i]), w.merchant)
	}
}

func TestAnAnswerThatIsKnownIsNotSentAgain(t *testing.T) {
	w := newWorld(t)
	w.placedAs("A-1", "A-2")
	for _, path := range []string{"/v1/payments?limit=1", w.do("GET", "/v1/payments", w.merchant, "").at(t, "data.0.id").(string)} {
		if strings.HasPrefix(path, "pay_") {
			path = "/v1/payments/" + path
		}
		first := w.do("GET", path, w.merchant, "")
		tag := first.header.Get("ETag")
		if !strings.HasPrefix(tag, `W/"`) {
			t.Fatalf("%s: tag %q", path, tag)
		}
		for _, known := range []string{tag, strings.TrimPrefix(tag, "W/"), `"other", ` + tag, "*"} {
			a := w.do("GET", path, w.merchant, "", "If-None-Match", known)
			if a.status != 304 || a.body != "" || a.header.Get("ETag") != tag {
				t.Errorf("%s, known %s: %d %q", path, known, a.status, a.body)
			}
		}
		if a := w.do("GET", path, w.merchant, "", "If-None-Match", `"other"`); a.status != 200 || a.body != first.body {
			t.Errorf("%s, another known: %d", path, a.status)
		}
		// What it shows has changed, or who looks: the auditor sees no address.
		if a := w.do("GET", path, w.auditor, "", "If-None-Match", tag); a.status != 200 {
			t.Errorf("%s as auditor: %d", path, a.status)
		}
	}
	list := w.do("GET", "/v1/payments?limit=1", w.merchant, "")
	w.placedAs("A-3")
	if a := w.do("GET", "/v1/payments?limit=1", w.merchant, "", "If-None-Match", list.header.Get("ETag")); a.status != 200 {
		t.Errorf("a list with a newer payment: %d", a.status)
	}
}

func TestLargeAnswersAreCompressedForWhoTakesIt(t *testing.T) {
	w := newWorld(t)
	w.placedAs("A-1", "A-2", "A-3", "A-4")
	plain := w.do("GET", "/v1/payments", w.merchant, "")
	for accepts, zipped := range map[string]bool{"gzip": true, "identity": false, "gzip;q=0": false} {
		a := w.do("GET", "/v1/payments", w.merchant, "", "Accept-Encoding", accepts)
		body := a.body
		if got := a.header.Get("Content-Encoding") == "gzip"; got != zipped || !slices.Contains(a.header.Values("Vary"), "Accept-Encoding") {
			t.Errorf("%s: %v", accepts, a.header)
		}
		if zipped {
			r, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			body = string(b)
		}
		if body != plain.body || a.header.Get("ETag") != plain.header.Get("ETag") {
			t.Errorf("%s: another answer", accepts)
		}
	}
	// Answers that may show a secret are never compressed.
	post := w.do("POST", "/v1/payments", w.merchant, strings.Repeat(" ", 2000)+good, "Idempotency-Key", "k", "Accept-Encoding", "gzip")
	if post.header.Get("Content-Encoding") != "" {
		t.Errorf("a POST: %v", post.header)
	}
}

func TestExpandShowsWhatTheirOwnRoutesDo(t *testing.T) {
	w := newWorld(t)
	w.placedAs("A-1")
	id := w.do("GET", "/v1/payments", w.merchant, "").at(t, "data.0.id").(string)
	for path, at := range map[string]string{"/v1/payments/" + id + "?expand=timeline,refunds": "", "/v1/payments?expand=timeline,refunds": "data.0."} {
		a := w.do("GET", path, w.merchant, "")
		if a.at(t, at+"timeline.data.0.type") != "order.placed" || a.at(t, at+"timeline.has_more") != false || a.at(t, at+"refunds.object") != "list" {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	for path, want := range map[string]string{
		"/v1/payments/" + id + "?expand=lines": "/query/expand expand_invalid", "/v1/payments/" + id + "?expand=refunds&expand=timeline": "/query/expand parameter_repeated",
	} {
		if got := w.refused(path, w.do("GET", path, w.merchant, ""), 400, payment.CodeInvalid); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	if a := w.do("GET", "/v1/payments/"+id, w.merchant, ""); strings.Contains(a.body, "timeline") {
		t.Errorf("not asked for: %s", a.body)
	}
}

func TestACountSaysWhatItIs(t *testing.T) {
	w := newWorld(t)
	w.placedAs("A-1", "A-2")
	a := w.do("GET", "/v1/payments?count=estimated&limit=1", w.merchant, "")
	if a.at(t, "count.value") != "2" || a.at(t, "count.kind") != "exact" {
		t.Errorf("%s", a.body)
	}
}

func TestCell_IsNoFormula(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "A-1": "A-1", "a=b": "a=b", "1;2": "1;2",
		"=1": "'=1", "+1": "'+1", "-1": "'-1", "@a": "'@a", "\ta": "'\ta", "\r=1": "'\r=1",
		" =1": "' =1", "\u00a0=1": "'\u00a0=1", "\ufeff=1": "'\ufeff=1", "\u200b+1": "'\u200b+1", "\u3000-1": "'\u3000-1",
		"\uff1d1": "'\uff1d1", "\uff0b1": "'\uff0b1", "\uff0d1": "'\uff0d1", "\uff201": "'\uff201",
		"\u00ad=1": "'\u00ad=1", "\u2800=1": "'\u2800=1", "\u3164=1": "'\u3164=1", "\u0301=1": "'\u0301=1", "\x00=1": "'\x00=1", "\v=1": "\v'=1",
		" \ufeff \u200b=1": "' \ufeff \u200b=1", "\ufe661": "'\ufe661", "\ufe621": "'\ufe621", "\ufe631": "'\ufe631", "\ufe6b1": "'\ufe6b1", "\u22121": "'\u22121", "\u207c1": "'\u207c1",
		"a\n=1": "a\n'=1", "a\t=1": "a\t'=1", "a\r\n =1": "a\r\n' =1", "\n=1": "\n'=1", "\u2028=1": "\u2028'=1", "a - b": "a - b", "a\n- b": "a\n'- b", "é=1": "é=1",
		"a;=1": "a;'=1", ";=1": ";'=1", "a; \uff1d1;@b": "a;' \uff1d1;'@b",
	} {
		if got := cell(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestAnExportIsTheListInSafeCells(t *testing.T) {
	w := newWorld(t)
	w.placedAs("=HYPERLINK(1)", "A-2", `-a \"b\", c`)
	a := w.do("GET", "/v1/payments?sort=created_at", w.merchant, "", "Accept", "text/csv")
	if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/csv") || a.header.Get("Content-Disposition") != `attachment; filename="payments.csv"` {
		t.Fatalf("%d %v", a.status, a.header)
	}
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Fatalf("%d rows: %v\n%s", len(rows), err, a.body)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	for i, want := range []string{"'=HYPERLINK(1)", "A-2", `'-a "b", c`} {
		row := rows[i+1]
		if row[column["order_reference"]] != want || row[column["customer_email"]] != "ada@example.com" || row[column["amount"]] != "4998" || row[column["currency_exponent"]] != "2" {
			t.Errorf("row %d: %q", i, row)
		}
	}
	if a := w.do("GET", "/v1/payments", w.auditor, "", "Accept", "text/csv"); strings.Contains(a.body, "ada@") || !strings.Contains(a.body, masked) {
		t.Errorf("to an auditor: %s", a.body)
	}
	if a := w.do("GET", "/v1/payments", w.other, "", "Accept", "text/csv"); strings.Count(a.body, "\n") != 1 {
		t.Errorf("to another merchant: %s", a.body)
	}
	for accept, table := range map[string]bool{
		"*/*": false, "application/json, text/csv;q=0.5": false, "text/csv, */*;q=0.1": true, "text/csv;q=0": false, "text/csv, */*": true,
		"application/json, text/csv": false, "nonsense/": false,
	} {
		a := w.do("GET", "/v1/payments", w.merchant, "", "Accept", accept)
		if got := strings.HasPrefix(a.header.Get("Content-Type"), "text/csv"); got != table {
			t.Errorf("%s: %s", accept, a.header.Get("Content-Type"))
		}
	}
	for _, query := range []string{"limit=5", "count=estimated", "expand=refunds"} {
		w.refused(query, w.do("GET", "/v1/payments?"+query, w.merchant, "", "Accept", "text/csv"), 400, payment.CodeInvalid)
	}
	if a := w.do("GET", "/v1/stock", w.operator, "", "Accept", "text/csv"); !strings.HasPrefix(a.body, "merchant,sku,on_hand") {
		t.Errorf("stock: %d %s", a.status, a.body)
	}
}

// between has two pages, and does something between them.
type between struct {
	*readmodel.Queries
	do    func()
	asked atomic.Int64
}

func (b *between) List(ctx context.Context, scope access.Scope, f readmodel.Filter) (readmodel.Page, error) {
	page, err := b.Queries.List(ctx, scope, f)
	if b.asked.Add(1) == 1 {
		page.Next = &readmodel.Cursor{ID: page.Payments[0].ID}
		b.do()
	}
	return page, err
}

// exported asks for an export with the key, and does something between its two pages.
// It reports how many pages were asked for, and how the body ended.
func (w *world) exported(key string, do func()) (asked int64, ended error) {
	w.t.Helper()
	c := w.api
	pages := &between{Queries: readmodel.NewQueries(w.pool), do: do}
	c.Payments, c.Registerer = pages, prometheus.NewRegistry()
	server := w.serve(c)
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, server.URL+"/v1/payments", http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Accept", "text/csv")
	resp, err := server.Client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return pages.asked.Load(), err
}

// An export goes on for as long as there are pages: it needs its key for each, and is
// no reason for a process to stay.
func TestAnExportEndsWithItsKeyAndWithTheService(t *testing.T) {
	w := newWorld(t)
	w.placedAs("A-1")
	if asked, err := w.exported(w.merchant, func() {}); asked != 2 || err != nil {
		t.Errorf("%d pages, and then %v", asked, err)
	}
	for role, key := range map[string]string{"merchant": w.merchant, "operator": w.operator} {
		credential, err := access.ParseKey(key)
		if err != nil {
			t.Fatal(err)
		}
		asked, err := w.exported(key, func() {
			if _, err := w.api.Keys.Revoke(t.Context(), access.By{Source: access.SourceCommandLine, Origin: "the test"}, credential.KeyID); err != nil {
				t.Error(err)
			}
		})
		if asked != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the %s's key was revoked: %d pages, and then %v", role, asked, err)
		}
	}
	if asked, err := w.exported(w.auditor, w.api.Streams.Drain); asked != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the service was stopping: %d pages, and then %v", asked, err)
	}
}

// breaking gives one page and then fails.
type breaking struct {
	*readmodel.Queries
	asked atomic.Int64
}

func (b *breaking) List(ctx context.Context, scope access.Scope, f readmodel.Filter) (readmodel.Page, error) {
	if b.asked.Add(1) > 1 {
		return readmodel.Page{}, errors.New("gone")
	}
	page, err := b.Queries.List(ctx, scope, f)
	page.Next = &readmodel.Cursor{ID: page.Payments[0].ID}
	return page, err
}

func TestAnExportThatBreaksOffIsSeenToDoSo(t *testing.T) {
	w := newWorld(t)
	w.placedAs("A-1")
	c := w.api
	c.Payments, c.Registerer = &breaking{Queries: readmodel.NewQueries(w.pool)}, prometheus.NewRegistry()
	server := w.serve(c)
	for _, encoding := range []string{"identity", "gzip"} {
		c.Payments.(*breaking).asked.Store(0)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/payments", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+w.merchant)
		r.Header.Set("Accept", "text/csv")
		r.Header.Set("Accept-Encoding", encoding)
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %d, %d bytes and then %v; want an end that is none", encoding, resp.StatusCode, len(body), err)
		}
	}
	// Before the first row it is a problem document.
	w.server = server
	w.refused("at once", w.do("GET", "/v1/payments", w.merchant, "", "Accept", "text/csv"), 500, payment.CodeInternal)
}
