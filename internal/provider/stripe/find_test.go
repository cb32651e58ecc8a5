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
	"payments/internal/provider/stripe/stripetest"
)

// lateOperation is an authorization of a payment that was made some time ago.
func lateOperation(made time.Time) provider.Operation {
	op := operation(provider.Authorization)
	op.Reference = payment.Generator{Now: func() time.Time { return made }, Random: rand.Reader}.New(payment.PrefixPayment)
	op.Until = made.Add(time.Hour + 2*time.Minute)
	return op
}

// On an account with ten payments a second the list of an hour has 360 pages, and a lookup
// has time for fifty. The search has it at once.
func TestABusyAccountsHoldIsFound(t *testing.T) {
	op := lateOperation(time.Now().Add(-2 * time.Hour))
	held := strings.ReplaceAll(intent("requires_capture", `,"latest_charge":"ch_1"`), reference, op.Reference)
	const pages = 360
	searched, listed := 0, 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/v1/payment_intents/search" {
			searched++
			fmt.Fprintf(w, `{"object":"search_result","has_more":false,"data":[%s]}`, held)
			return
		}
		n := 0
		if after := r.URL.Query().Get("starting_after"); after != "" {
			_, _ = fmt.Sscanf(after, "pi_x%d", &n)
		}
		n++
		listed++
		if n > 50 {
			<-r.Context().Done() // no time is left for it
			return
		}
		item := fmt.Sprintf(`{"id":"pi_x%d","object":"payment_intent","metadata":{}}`, n)
		fmt.Fprintf(w, `{"object":"list","has_more":%t,"data":[%s]}`, n < pages, item)
	}))
	defer srv.Close()
	for range 3 {
		r := newClient(t, srv.URL, 500*time.Millisecond).Lookup(t.Context(), op)
		if r.Outcome != provider.Succeeded {
			t.Errorf("%s: %v (%d pages read, %d searches)", r.Outcome, r.Err, listed, searched)
		}
	}
}

// Where there is no search, each lookup reads on in the list from where the last one stopped.
func TestALookupGoesOnWhereTheLastOneStopped(t *testing.T) {
	const others, pagesOfALookup = 20, 5
	for name, meanwhile := range map[string]bool{"given before": false, "given while the list was read": true} {
		t.Run(name, func(t *testing.T) {
			s := stripetest.New(t)
			a := s.Account(testKey)
			s.SetPageSize(1)
			s.Break(stripetest.Fault{Method: http.MethodGet, Path: "/v1/payment_intents/search", Status: http.StatusForbidden})
			made := time.Now().Add(-2 * time.Hour)
			op := lateOperation(made)
			c := newClient(t, s.URL, time.Minute)
			give := func() {
				if r := c.Execute(t.Context(), op); r.Outcome != provider.Succeeded {
					t.Fatalf("%+v", r)
				}
			}
			if !meanwhile {
				s.SetClock(func() time.Time { return made })
				give()
			}
			a.Seed(others, made.Add(time.Minute)) // before it in the list
			lookups, asked := 0, len(s.Requests())
			for found := false; !found; lookups++ {
				if lookups > others {
					t.Fatal("it is not found")
				}
				heal := s.Break(stripetest.Fault{Method: http.MethodGet, Path: "/v1/payment_intents", After: pagesOfALookup, Status: http.StatusInternalServerError})
				r := c.Lookup(t.Context(), op)
				heal()
				if found = r.Outcome == provider.Succeeded; !found && r.Outcome != provider.Unknown {
					t.Fatalf("lookup %d: %+v", lookups, r)
				}
				if lookups == 0 && meanwhile {
					give()
				}
			}
			// A search and a page without an answer each, and each page once.
			if n := len(s.Requests()) - asked; lookups < 2 || n > others+pagesOfALookup+2*lookups {
				t.Errorf("%d requests of %d lookups", n, lookups)
			}
		})
	}
}

func TestALookupOfANewPaymentDoesNotSearch(t *testing.T) {
	s := stripetest.New(t)
	s.Account(testKey)
	op := lateOperation(time.Now())
	c := newClient(t, s.URL, time.Minute)
	if r := c.Lookup(t.Context(), op); r.Outcome != provider.NotFound {
		t.Errorf("%+v", r)
	}
	if got := s.Requests(); len(got) != 1 || got[0] != "GET /v1/payment_intents" {
		t.Errorf("requests %v", got)
	}
}
