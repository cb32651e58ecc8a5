package readmodel

import (
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"payments/internal/payment"
)

// walk follows the cursors to the end, with between called before each next page.
func walk(t *testing.T, w *world, merchantID, query string, between func()) []string {
	t.Helper()
	var ids []string
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		f, err := ParseFilter(values)
		if err != nil {
			t.Fatalf("ParseFilter: %v", err)
		}
		page, err := w.queries.List(t.Context(), merchant(t, merchantID), f)
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if len(page.Payments) > f.Limit || page.HasMore != (page.NextCursor != "") {
			t.Fatalf("page of %d with limit %d, has more %t, cursor %q", len(page.Payments), f.Limit, page.HasMore, page.NextCursor)
		}
		for _, p := range page.Payments {
			ids = append(ids, p.ID)
		}
		if !page.HasMore {
			return ids
		}
		values.Set("cursor", page.NextCursor)
		if between != nil {
			between()
		}
	}
	t.Fatal("the list has no end")
	return nil
}

func TestListsPageThroughEveryFilterNewestFirst(t *testing.T) {
	w := newWorld(t)
	m, other := w.merchant(), w.merchant()
	start := w.clock
	var all []*life
	for i := range 12 {
		o := w.order(m)
		w.apply(o.placed(func(p *payment.PlacedData) {
			if i%3 == 0 {
				p.Currency, p.Customer.Reference = "JPY", "cust-ü"
			}
			if i == 5 {
				p.Reference = "A-5"
			}
		}))
		if i%2 == 0 {
			w.apply(o.event(payment.EventOrderFailed, payment.StatusFailed, func(d *payment.EventData) {
				d.Failure = &payment.Failure{Code: "x", Step: "reserve_stock", Message: "No."}
			}))
		}
		all = append(all, o)
		w.apply(w.order(other).placed())
		w.clock = start.Add(time.Duration(i+1) * 3 * time.Hour)
	}
	matching := func(keep func(i int) bool) []string {
		ids := []string{}
		for i, o := range slices.Backward(all) {
			if keep(i) {
				ids = append(ids, o.ids.PaymentID)
			}
		}
		return ids
	}
	created := func(i int) time.Time { return w.get(all[i]).CreatedAt }
	at := func(i int) string { return url.QueryEscape(created(i).Format(time.RFC3339Nano)) }
	zone := url.QueryEscape(created(3).In(time.FixedZone("", 3600*5)).Format(time.RFC3339Nano))
	cases := map[string]func(i int) bool{
		"":                                   func(int) bool { return true },
		"limit=5":                            func(int) bool { return true },
		"limit=1":                            func(int) bool { return true },
		"limit=12":                           func(int) bool { return true },
		"limit=100":                          func(int) bool { return true },
		"status=failed&limit=2":              func(i int) bool { return i%2 == 0 },
		"status=canceled":                    func(int) bool { return false },
		"currency=JPY&limit=3":               func(i int) bool { return i%3 == 0 },
		"customer=cust-%C3%BC&limit=1":       func(i int) bool { return i%3 == 0 },
		"order=A-5":                          func(i int) bool { return i == 5 },
		"currency=JPY&status=failed&limit=1": func(i int) bool { return i%6 == 0 },
		"limit=2&created_from=" + at(3):      func(i int) bool { return i >= 3 },
		"limit=2&created_from=" + zone:       func(i int) bool { return i >= 3 },
		"limit=2&created_to=" + at(9):        func(i int) bool { return i < 9 },
		"limit=1&created_from=" + at(3) + "&created_to=" + at(6): func(i int) bool { return i >= 3 && i < 6 },
		"created_to=1969-01-01T00:00:00Z":                        func(int) bool { return false },
		"created_from=1901-01-01T00:00:00Z":                      func(int) bool { return true },
		"created_from=9999-12-31T23:59:59Z":                      func(int) bool { return false },
	}
	for query, keep := range cases {
		t.Run(query, func(t *testing.T) {
			got := walk(t, w, m, query, nil)
			if want := matching(keep); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestAWalkIsStableWhileNewPaymentsCome(t *testing.T) {
	w := newWorld(t)
	m := w.merchant()
	var want []string
	for range 25 {
		o := w.order(m)
		w.apply(o.placed())
		want = append(want, o.ids.PaymentID)
	}
	slices.Reverse(want)
	got := walk(t, w, m, "limit=4", func() {
		for range 5 {
			w.apply(w.order(m).placed())
		}
	})
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want the payments that were there at the start: %q", got, want)
	}
}

func refused(t *testing.T, err error) []string {
	t.Helper()
	coded, ok := errors.AsType[*payment.Error](err)
	if !ok || coded.Code != payment.CodeInvalid {
		t.Fatalf("%v, want a refusal of the query", err)
	}
	var pointers []string
	for _, f := range coded.Fields {
		pointers = append(pointers, f.Pointer+" "+f.Code)
	}
	return pointers
}

func TestAQueryIsRefusedWithEveryFault(t *testing.T) {
	long := strings.Repeat("é", 65)
	cases := map[string][]string{
		"limit=0":               {"/query/limit out_of_range"},
		"limit=101":             {"/query/limit out_of_range"},
		"limit=-1":              {"/query/limit out_of_range"},
		"limit=%2B5":            {"/query/limit out_of_range"},
		"limit=":                {"/query/limit out_of_range"},
		"limit=1e1":             {"/query/limit out_of_range"},
		"limit=257":             {"/query/limit out_of_range"},
		"limit=1&limit=2":       {"/query/limit parameter_repeated"},
		"status=paid":           {"/query/status status_invalid"},
		"status=":               {"/query/status status_invalid"},
		"currency=eur":          {"/query/currency currency_invalid"},
		"currency=XXX":          {"/query/currency currency_invalid"},
		"customer=":             {"/query/customer text_invalid"},
		"customer=a%00":         {"/query/customer text_invalid"},
		"customer=%ff":          {"/query/customer text_invalid"},
		"order=" + long:         {"/query/order text_invalid"},
		"created_from=today":    {"/query/created_from time_invalid"},
		"created_to=2026-01-01": {"/query/created_to time_invalid"},
		"created_from=2026-01-02T00:00:00Z&created_to=2026-01-02T00:00:00Z": {"/query/created_to out_of_range"},
		"sort=amount":               {"/query parameter_unknown"},
		"Limit=1":                   {"/query parameter_unknown"},
		"cursor=":                   {"/query/cursor cursor_invalid"},
		"cursor=garbage":            {"/query/cursor cursor_invalid"},
		"cursor=%00":                {"/query/cursor cursor_invalid"},
		"limit=0&x=1&y=2&status=no": {"/query/limit out_of_range", "/query/status status_invalid", "/query parameter_unknown", "/query parameter_unknown"},
	}
	for query, want := range cases {
		t.Run(query, func(t *testing.T) {
			values, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseFilter(values)
			same(t, "refused", refused(t, err), want)
		})
	}
}

func TestACursorHoldsForItsFiltersOnly(t *testing.T) {
	w := newWorld(t)
	f, err := ParseFilter(url.Values{"currency": {"EUR"}, "limit": {"5"}})
	if err != nil {
		t.Fatal(err)
	}
	cursor := f.cursor(w.ids.New(payment.PrefixPayment))
	if _, err := ParseFilter(url.Values{"currency": {"EUR"}, "limit": {"9"}, "cursor": {cursor}}); err != nil {
		t.Errorf("same filters: %v", err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		t.Fatal(err)
	}
	raw[4] = 'u' // no letter of an id's alphabet
	for _, values := range []url.Values{
		{"cursor": {cursor}},
		{"currency": {"USD"}, "cursor": {cursor}},
		{"currency": {"EUR"}, "status": {"failed"}, "cursor": {cursor}},
		{"currency": {"EUR"}, "created_from": {"2026-01-01T00:00:00Z"}, "cursor": {cursor}},
		{"currency": {"EUR"}, "cursor": {cursor + "="}},
		{"currency": {"EUR"}, "cursor": {cursor + "\n"}},
		{"currency": {"EUR"}, "cursor": {cursor[:len(cursor)-1] + string(cursor[len(cursor)-1]+1)}}, // bits that no byte uses
		{"currency": {"EUR"}, "cursor": {cursor[:len(cursor)-2]}},
		{"currency": {"EUR"}, "cursor": {base64.RawURLEncoding.EncodeToString(raw)}},
	} {
		_, err := ParseFilter(values)
		same(t, values.Encode(), refused(t, err), []string{"/query/cursor cursor_invalid"})
	}
	_, err = w.queries.List(t.Context(), operator(t), Filter{Currency: "USD", After: cursor})
	same(t, "List", refused(t, err), []string{"/query/cursor cursor_invalid"})
}
