package api

import (
	"fmt"
	"strings"
	"testing"

	"payments/internal/payment"
)

func TestTheTimelineComesInPages(t *testing.T) {
	w := newWorld(t)
	ids := []string{strings.Fields(w.fail(1, "T-")[0])[0], strings.Fields(w.fail(1, "U-")[0])[0]}
	path := "/v1/payments/" + ids[0] + "/timeline"
	const more = 1500
	// The same event again and again, as a payment with very many refunds would have them.
	if _, err := w.pool.Exec(t.Context(), `
		INSERT INTO payment_timeline (merchant_id, payment_id, sequence, type, event_id, occurred_at, data)
		SELECT merchant_id, payment_id, sequence + n, type, left(event_id, 20) || lpad(n::text, 10, '0'), occurred_at, data
		FROM payment_timeline, generate_series(1, $2) n WHERE payment_id = $1 AND sequence = 2`, ids[0], more); err != nil {
		t.Fatal(err)
	}
	walk := func(query string, page int) {
		t.Helper()
		var seen []string
		for next := ""; ; {
			a := w.do("GET", path+"?"+query+next, w.merchant, "")
			data, _ := a.at(t, "data").([]any)
			if a.status != 200 || len(data) == 0 || len(data) > page {
				t.Fatalf("%s: %d with %d entries", query+next, a.status, len(data))
			}
			for _, entry := range data {
				seen = append(seen, fmt.Sprint(entry.(map[string]any)["sequence"]))
			}
			if a.at(t, "has_more") == false {
				if a.at(t, "next_cursor") != nil {
					t.Errorf("the last page has the cursor %v", a.at(t, "next_cursor"))
				}
				break
			}
			next = "&cursor=" + a.at(t, "next_cursor").(string)
		}
		if len(seen) != more+2 {
			t.Errorf("%s: %d entries, want %d", query, len(seen), more+2)
		}
		for i, n := range seen {
			if n != fmt.Sprint(i+1) {
				t.Fatalf("%s: entry %d has the sequence %s", query, i, n)
			}
		}
	}
	walk("limit=100", 100)
	walk("", maxTimeline)
	first := w.do("GET", path+"?limit=1", w.merchant, "")
	cursor := first.at(t, "next_cursor").(string)
	for what, a := range map[string]answer{
		"another payment's":   w.do("GET", "/v1/payments/"+ids[1]+"/timeline?cursor="+cursor, w.merchant, ""),
		"another list's":      w.do("GET", "/v1/payments/"+ids[0]+"/refunds?cursor="+cursor, w.merchant, ""),
		"another caller's":    w.do("GET", path+"?cursor="+cursor, w.auditor, ""),
		"a changed one":       w.do("GET", path+"?cursor=A"+cursor, w.merchant, ""),
		"one of another list": w.do("GET", path+"?cursor="+w.do("GET", "/v1/payments?limit=1", w.merchant, "").at(t, "next_cursor").(string), w.merchant, ""),
	} {
		if got := w.refused(what, a, 400, payment.CodeInvalid); len(got) != 1 || got[0] != "/query/cursor cursor_invalid" {
			t.Errorf("%s: %q", what, got)
		}
	}
	// A payment with few events has all of them in one page, as before there were pages.
	if a := w.do("GET", "/v1/payments/"+ids[1]+"/timeline", w.merchant, ""); a.at(t, "has_more") != false || len(a.at(t, "data").([]any)) != 2 {
		t.Errorf("%s", a.body)
	}
}
