package stripe

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"payments/internal/payment"
	"payments/internal/provider"
)

func TestWhatALookupMeans(t *testing.T) {
	const auth, capture, void, refund = provider.Authorization, provider.Capture, provider.Void, provider.Refund
	list := func(items ...string) string {
		return `{"object":"list","has_more":false,"data":[` + strings.Join(items, ",") + `]}`
	}
	held := intent("requires_capture", `,"latest_charge":"ch_1"`)
	taken := intent("succeeded", `,"latest_charge":"ch_1","amount_received":4998`)
	missing := errorBody("invalid_request_error", "resource_missing", "")
	for name, tc := range map[string]struct {
		op      provider.OperationType
		status  int
		body    string
		outcome provider.Outcome
	}{
		"held":                     {auth, 200, list(strings.Replace(held, `"key":"k"`, `"key":"l"`, 1), held), provider.Succeeded},
		"declined":                 {auth, 200, list(intent("requires_payment_method", `,"last_payment_error":{"code":"card_declined","message":"No."}`)), provider.Rejected},
		"nothing":                  {auth, 200, list(), provider.NotFound},
		"another key":              {auth, 200, list(strings.Replace(held, `"key":"k"`, `"key":"l"`, 1)), provider.NotFound},
		"no list":                  {auth, 200, `{}`, provider.Unknown},
		"another object":           {auth, 200, held, provider.Unknown},
		"a list of tomorrow":       {auth, 200, `{"object":"search_result","data":[]}`, provider.Unknown},
		"error":                    {auth, 500, errorBody("api_error", "", ""), provider.Unknown},
		"too many requests":        {auth, 429, errorBody("invalid_request_error", "rate_limit", ""), provider.Unknown},
		"being processed":          {auth, 200, list(intent("processing", "")), provider.Unknown},
		"captured":                 {capture, 200, taken, provider.Succeeded},
		"captured under another":   {capture, 200, strings.Replace(taken, `"capture_key":"k"`, `"capture_key":"l"`, 1), provider.NotFound},
		"not captured":             {capture, 200, held, provider.NotFound},
		"voided instead":           {capture, 200, intent("canceled", ""), provider.NotFound},
		"capture of nothing":       {capture, 404, missing, provider.Unknown},
		"void of nothing":          {void, 404, missing, provider.Unknown},
		"not authenticated":        {refund, 401, errorBody("invalid_request_error", "", ""), provider.Unknown},
		"not permitted":            {auth, 403, errorBody("invalid_request_error", "", ""), provider.Unknown},
		"not a request":            {auth, 400, errorBody("invalid_request_error", "", ""), provider.Unknown},
		"404 of something else":    {capture, 404, `<html>`, provider.Unknown},
		"404 without a code":       {capture, 404, errorBody("invalid_request_error", "", ""), provider.Unknown},
		"capture of another":       {capture, 200, strings.Replace(taken, reference, "pay_2", 1), provider.Unknown},
		"voided":                   {void, 200, intent("canceled", ""), provider.Succeeded},
		"not voided":               {void, 200, held, provider.NotFound},
		"captured instead":         {void, 200, taken, provider.NotFound},
		"refunded":                 {refund, 200, list(refundOf("succeeded")), provider.Succeeded},
		"refund pending":           {refund, 200, list(refundOf("pending")), provider.Unknown},
		"refund failed":            {refund, 200, list(refundOf("failed")), provider.Rejected},
		"not refunded":             {refund, 200, list(), provider.NotFound},
		"refund of nothing":        {refund, 404, missing, provider.Unknown},
		"refund of nothing, 400":   {refund, 400, missing, provider.Unknown},
		"a refund that is no list": {refund, 200, refundOf("succeeded"), provider.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := answering(t, tc.status, tc.body)
			r := newClient(t, url, time.Minute).Lookup(t.Context(), operation(tc.op))
			if r.Outcome != tc.outcome || r.InFlight || (r.Err != nil) != (tc.outcome == provider.Unknown) {
				t.Errorf("%+v, want %s", r, tc.outcome)
			}
		})
	}
}

// pages serves n pages of one PaymentIntent each, the wanted one last, and none
// after limit.
func pages(t *testing.T, n, limit int, queries *[]string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/payment_intents/search" {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"object":"search_result","has_more":false,"data":[]}`)
			return
		}
		page := len(*queries) + 1
		*queries = append(*queries, r.URL.RawQuery)
		if page > limit {
			<-r.Context().Done()
			return
		}
		item := fmt.Sprintf(`{"id":"pi_%d","object":"payment_intent","metadata":{}}`, page+1)
		if page == n {
			item = intent("requires_capture", `,"latest_charge":"ch_1"`)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"object":"list","has_more":%t,"data":[%s]}`, page < n, item)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestALookupReadsToTheEndOfTheList(t *testing.T) {
	var queries []string
	c := newClient(t, pages(t, 3, 3, &queries), time.Minute)
	if r := c.Lookup(t.Context(), operation(provider.Authorization)); r.Outcome != provider.Succeeded || len(queries) != 3 {
		t.Errorf("%+v after %q", r, queries)
	}
	if !strings.Contains(queries[2], "starting_after=pi_3") {
		t.Errorf("asked %q", queries[2])
	}

	queries = nil
	c = newClient(t, pages(t, 3, 2, &queries), 300*time.Millisecond) // the third is never answered
	if r := c.Lookup(t.Context(), operation(provider.Authorization)); r.Outcome != provider.Unknown {
		t.Errorf("half a list gives %+v", r)
	}
}

func TestALookupAsksForWhatCameAfterThePayment(t *testing.T) {
	made := time.Date(2026, 3, 30, 14, 46, 21, 440e6, time.UTC)
	op := operation(provider.Authorization)
	op.Reference = payment.Generator{Now: func() time.Time { return made }, Random: rand.Reader}.New(payment.PrefixPayment)
	var queries []string
	c := newClient(t, pages(t, 1, 1, &queries), time.Minute)
	if r := c.Lookup(t.Context(), op); r.Outcome != provider.NotFound {
		t.Errorf("%+v", r)
	}
	if want := fmt.Sprintf("limit=100&created[gte]=%d", made.Add(-skew).Unix()); queries[0] != want {
		t.Errorf("asked %q, want %q", queries[0], want)
	}
	// Nor for what came after it can have been carried out: on a busy account that is much.
	op.Until, queries = time.Now(), nil
	c = newClient(t, pages(t, 1, 1, &queries), time.Minute)
	c.Lookup(t.Context(), op)
	if want := fmt.Sprintf("limit=100&created[gte]=%d&created[lte]=%d", made.Add(-skew).Unix(), op.Until.Add(skew).Unix()); len(queries) == 0 || queries[0] != want {
		t.Errorf("asked %q, want %q", queries, want)
	}
}

// A sender that had stood still lets its request go after the last that was expected:
// no list that ends there has what came of it, however often it is read.
func TestAnAuthorizationThatCameTooLateIsFound(t *testing.T) {
	made := time.Now().Add(-3 * time.Hour)
	op := operation(provider.Authorization)
	op.Reference = payment.Generator{Now: func() time.Time { return made }, Random: rand.Reader}.New(payment.PrefixPayment)
	held := strings.ReplaceAll(intent("requires_capture", `,"latest_charge":"ch_1"`), reference, op.Reference)
	const list, result = `{"object":"list","has_more":false,"data":[]}`, `{"object":"search_result","has_more":false,"data":[%s]}`
	expired, expected := made.Add(2*time.Minute), time.Now().Add(time.Minute)
	for name, tc := range map[string]struct {
		until    time.Time
		status   int
		body     string
		outcome  provider.Outcome
		searched bool
	}{
		"given":                   {expired, 200, fmt.Sprintf(result, held), provider.Succeeded, true},
		"never given":             {expired, 200, fmt.Sprintf(result, ""), provider.NotFound, true},
		"of another key":          {expired, 200, fmt.Sprintf(result, strings.Replace(held, `"key":"k"`, `"key":"l"`, 1)), provider.NotFound, true},
		"an account without it":   {expired, 400, errorBody("invalid_request_error", "", ""), provider.NotFound, true},
		"a key without the right": {expired, 403, errorBody("invalid_request_error", "", ""), provider.NotFound, true},
		"too many requests":       {expired, 429, errorBody("invalid_request_error", "rate_limit", ""), provider.Unknown, true},
		"no answer":               {expired, 500, errorBody("api_error", "", ""), provider.Unknown, true},
		"no result":               {expired, 200, list, provider.Unknown, true},
		"expected still":          {expected, 200, fmt.Sprintf(result, held), provider.Succeeded, true},
		"expected at any time":    {time.Time{}, 200, fmt.Sprintf(result, held), provider.Succeeded, true},
		"expected, and no answer": {expected, 500, errorBody("api_error", "", ""), provider.NotFound, true},
		"a key that is not known": {expired, 401, errorBody("invalid_request_error", "", ""), provider.Unknown, true},
		"given, and Stripe's own": {expired, 200, fmt.Sprintf(result, `{"id":"pi_2","object":"payment_intent","metadata":{}},`+held), provider.Succeeded, true},
	} {
		t.Run(name, func(t *testing.T) {
			var query string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if r.URL.Path != "/v1/payment_intents/search" {
					fmt.Fprint(w, list)
					return
				}
				query = r.URL.Query().Get("query")
				w.WriteHeader(tc.status)
				fmt.Fprint(w, tc.body)
			}))
			defer srv.Close()
			op := op
			op.Until = tc.until
			r := newClient(t, srv.URL, time.Minute).Lookup(t.Context(), op)
			if want := `metadata["reference"]:"` + op.Reference + `"`; r.Outcome != tc.outcome || tc.searched != (query == want) || !tc.searched && query != "" {
				t.Errorf("%+v after the search %q, want %s", r, query, tc.outcome)
			}
		})
	}
}

func TestAReferenceThatTellsNoTime(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	c, err := New(testKey, Config{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"", "pay_1", "A-1001", reference[4:], reference + "0", "pay_01jqzr8i00e8qs2w5a1b2c3d4e"} {
		if got := c.created(other); !got.Equal(now.Add(-25 * time.Hour)) {
			t.Errorf("%q was made at %s", other, got)
		}
	}
}
