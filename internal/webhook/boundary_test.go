package webhook

import (
	"strings"
	"testing"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// What the constructor refuses the table refuses as well, but for what only the
// Guard knows: whether an address is a public one.
func TestEndpointBoundariesAgree(t *testing.T) {
	w := newWorld(t)
	const url = "https://example.com/"
	all := make([]string, len(payment.EventTypes))
	for i, e := range payment.EventTypes {
		all[i] = string(e)
	}
	for _, b := range []struct {
		url    string
		events []string
		valid  bool
	}{
		{url, []string{AllEvents}, true}, {url, all, true}, {url, nil, false}, {url, []string{}, false}, {url, []string{""}, false},
		{url, []string{AllEvents, "order.placed"}, false}, {url, []string{"order.placed "}, false}, {url, []string{"order.nothing"}, false},
		{"", all, false}, {"example.com", all, false}, {"https://", all, false}, {"ftp://example.com/", all, false},
		{"https://a:b@example.com/", all, false}, {"https://example.com/#f", all, false}, {"https://example.com/a b", all, false},
		{"https://example.com", all, true}, {"https://example.com?a=b", all, true}, {"https://example.com/a\n", all, false},
		{url + strings.Repeat("a", 2048-len(url)), all, true}, {url + strings.Repeat("a", 2049-len(url)), all, false},
	} {
		if _, err := NewDraft(Guard{}, b.url, b.events); (err == nil) != b.valid {
			t.Errorf("%.60q %q: the domain says %v", b.url, b.events, err)
		}
		_, err := w.pool.Exec(t.Context(), `INSERT INTO webhook_endpoints (merchant_id, id, url, events) VALUES ($1, $2, $3, coalesce($4, '{}'::text[]))`,
			w.merchantID, w.ids.New(payment.PrefixEndpoint), b.url, b.events)
		if (err == nil) != b.valid || err != nil && !postgres.DataError(err) {
			t.Errorf("%.60q %q: the database says %v", b.url, b.events, err)
		}
	}
}
