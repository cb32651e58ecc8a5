package readmodel

import (
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
	f, err := ParseFilter(values)
	if err != nil {
		t.Fatalf("ParseFilter: %v", err)
	}
	for range 1000 {
		page, err := w.queries.List(t.Context(), merchant(t, merchantID), f)
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if len(page.Payments) > f.Limit {
			t.Fatalf("page of %d with limit %d", len(page.Payments), f.Limit)
		}
		for _, p := range page.Payments {
			ids = append(ids, p.ID)
		}
		if page.Next == nil {
			return ids
		}
		f.After = page.Next
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
		"status=failed,canceled&limit=2":     func(i int) bool { return i%2 == 0 },
		"status=failed,processing&limit=5":   func(int) bool { return true },
		"failure_code=x&limit=4":             func(i int) bool { return i%2 == 0 },
		"failure_code=y":                     func(int) bool { return false },
		"payment_method=pm_card_visa":        func(int) bool { return true },
		"amount_min=4998&amount_max=4998":    func(int) bool { return true },
		"amount_min=4999":                    func(int) bool { return false },
		"sort=-created_at&limit=5":           func(int) bool { return true },
		"q=CUST-U&limit=1":                   func(i int) bool { return i%3 == 0 },
		"q=5":                                func(i int) bool { return i == 5 },
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
		"sort=updated_at":           {"/query/sort sort_invalid"},
		"sort=--amount":             {"/query/sort sort_invalid"},
		"sort=amount&q=a":           {"/query/sort sort_with_search"},
		"q=":                        {"/query/q text_invalid"},
		"q=%CC%81":                  {"/query/q text_invalid"}, // an accent of nothing
		"status=failed,failed":      {"/query/status status_invalid"},
		"status=failed,":            {"/query/status status_invalid"},
		"amount_min=0":              {"/query/amount_min out_of_range"},
		"amount_max=1e3":            {"/query/amount_max out_of_range"},
		"amount_max=1000000000000":  {"/query/amount_max out_of_range"},
		"amount_min=3&amount_max=2": {"/query/amount_max out_of_range"},
		"merchant=mer_1":            {"/query/merchant id_invalid"},
		"count=exact":               {"/query/count count_invalid"},
		"expand=order":              {"/query/expand expand_invalid"},
		"expand=refunds,refunds":    {"/query/expand expand_invalid"},
		"expand=refunds&limit=26":   {"/query/limit out_of_range"},
		"Limit=1":                   {"/query/Limit parameter_unknown"},
		"cursor=x":                  {"/query/cursor parameter_unknown"}, // the caller has read it
		"limit=0&x=1&y=2&status=no": {"/query/limit out_of_range", "/query/status status_invalid", "/query/x parameter_unknown", "/query/y parameter_unknown"},
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
