package stripetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is one api.stripe.com with its accounts.
type Server struct {
	URL string

	t   testing.TB
	now func() time.Time

	mu       sync.Mutex
	byKey    map[string]*Account
	accounts int
	breaks   []*broken
	requests []string
	pageSize int
	closed   chan struct{}
}

// New starts a server that ends with the test.
func New(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{t: tb, now: time.Now, byKey: map[string]*Account{}, closed: make(chan struct{})}
	srv := httptest.NewServer(s)
	s.URL = srv.URL
	tb.Cleanup(func() {
		close(s.closed) // which ends the requests that are not answered
		srv.Close()
	})
	return s
}

// SetClock gives the time of what is created from now on.
func (s *Server) SetClock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// SetPageSize lets no list have more than n items a page, whatever its limit says.
func (s *Server) SetPageSize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pageSize = n
}

// Requests are the methods and paths of all requests so far, oldest first.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// Account is the books of one Stripe account. Its methods lock the server.
type Account struct {
	ID string

	s        *Server
	n        int
	intents  []*intent
	charges  []*charge
	refunds  []*refund
	disputes []*dispute
	events   []*event
	saved    map[string]*saved // by idempotency key
	unsent   int               // index of the first event that Deliver has not sent
	pending  bool              // refunds begin as pending
	frozen   map[string]bool   // ids that the search index has; nil: all
}

// Account opens an account that is known by these API keys.
func (s *Server) Account(keys ...string) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts++
	a := &Account{ID: fmt.Sprintf("acct_%016d", s.accounts), s: s, saved: map[string]*saved{}}
	for _, k := range keys {
		s.byKey[k] = a
	}
	return a
}

// AddKey makes another API key of the account, as a rotation does.
func (a *Account) AddKey(key string) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.s.byKey[key] = a
}

// RevokeKey ends an API key: requests with it get 401.
func (s *Server) RevokeKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byKey, key)
}

func (a *Account) id(prefix string) string {
	a.n++
	return fmt.Sprintf("%s_%s%06d", prefix, a.ID[len(a.ID)-4:], a.n)
}

// answer of a request: JSON, and whether it is kept under the idempotency key.
type answer struct {
	status int
	body   map[string]any
	keep   bool
}

func ok(body map[string]any) answer { return answer{http.StatusOK, body, true} }

// failed is an error as Stripe documents it, https://docs.stripe.com/api/errors. It is not
// kept: the request was refused before it was carried out.
func failed(status int, code, param, message string) answer {
	e := map[string]any{"type": "invalid_request_error", "message": message}
	if code != "" {
		e["code"] = code
	}
	if param != "" {
		e["param"] = param
	}
	return answer{status, map[string]any{"error": e}, false}
}

// kept makes an answer one that was found out by carrying the request out.
func (a answer) kept() answer {
	a.keep = true
	return a
}

func missing(param, what, id string) answer {
	return failed(http.StatusNotFound, "resource_missing", param, fmt.Sprintf(
		"No such %s: '%s'; a similar object exists in live mode, but a test mode key was used to make this request.", what, id))
}

func invalid(param, message string) answer {
	return failed(http.StatusBadRequest, "", param, message)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.write(w, invalid("", "The form cannot be read."))
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	b := s.struck(r)
	var given answer
	if b == nil || b.Applied {
		given = s.serve(r)
	}
	s.mu.Unlock()
	switch {
	case b == nil:
		s.write(w, given)
	case b.Status == 0:
		select { // no answer
		case <-r.Context().Done():
		case <-s.closed:
		}
	default:
		b.write(w)
	}
}

// serve carries one request out.
func (s *Server) serve(r *http.Request) answer {
	key, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if user, _, basic := r.BasicAuth(); basic {
		key, found = user, true
	}
	a := s.byKey[key]
	if !found || a == nil {
		return failed(http.StatusUnauthorized, "", "", "Invalid API Key provided.")
	}
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	if r.Method == http.MethodPost {
		return a.once(r.Header.Get("Idempotency-Key"), r.URL.Path, r.PostForm, func() answer { return a.post(path, r.PostForm) })
	}
	if r.Method == http.MethodGet {
		return a.get(path, r.Form)
	}
	return failed(http.StatusMethodNotAllowed, "", "", "This method is not allowed.")
}

func (a *Account) post(path []string, f url.Values) answer {
	switch {
	case len(path) == 1 && path[0] == "payment_intents":
		return a.createIntent(f)
	case len(path) == 3 && path[0] == "payment_intents" && path[2] == "capture":
		return a.captureIntent(path[1], f)
	case len(path) == 3 && path[0] == "payment_intents" && path[2] == "cancel":
		return a.cancelIntent(path[1], f)
	case len(path) == 1 && path[0] == "refunds":
		return a.createRefund(f)
	}
	return failed(http.StatusNotFound, "", "", "Unrecognized request URL (POST: /v1/"+strings.Join(path, "/")+").")
}

func (a *Account) get(path []string, f url.Values) answer {
	expand := append(f["expand[]"], f["expand"]...)
	for i := 0; f.Has(fmt.Sprintf("expand[%d]", i)); i++ {
		expand = append(expand, f.Get(fmt.Sprintf("expand[%d]", i)))
	}
	if len(path) == 1 {
		switch path[0] {
		case "account":
			return ok(map[string]any{"id": a.ID, "object": "account", "type": "standard", "charges_enabled": true, "country": "DE", "default_currency": "eur"})
		case "payment_intents":
			return list(a, "/v1/payment_intents", f, expand, a.intents, func(*intent) bool { return true })
		case "charges":
			return list(a, "/v1/charges", f, expand, a.charges, func(c *charge) bool { return matches(f, "payment_intent", c.PaymentIntent) })
		case "refunds":
			return a.listRefunds(f, expand)
		case "disputes":
			return list(a, "/v1/disputes", f, expand, a.disputes, func(d *dispute) bool {
				return matches(f, "charge", d.Charge) && matches(f, "payment_intent", d.PaymentIntent)
			})
		case "events":
			return list(a, "/v1/events", f, nil, a.events, func(e *event) bool { return matches(f, "type", e.Type) })
		}
	}
	if len(path) == 2 {
		switch path[0] {
		case "payment_intents":
			if path[1] == "search" {
				return a.searchIntents(f, expand)
			}
			return retrieve(a, a.intents, "intent", "payment_intent", path[1], expand)
		case "charges":
			return retrieve(a, a.charges, "id", "charge", path[1], expand)
		case "refunds":
			return retrieve(a, a.refunds, "id", "refund", path[1], expand)
		case "disputes":
			return retrieve(a, a.disputes, "dispute", "dispute", path[1], expand)
		case "events":
			return retrieve(a, a.events, "id", "event", path[1], nil)
		}
	}
	return failed(http.StatusNotFound, "", "", "Unrecognized request URL (GET: /v1/"+strings.Join(path, "/")+").")
}

func (s *Server) write(w http.ResponseWriter, a answer) {
	raw, err := json.Marshal(a.body)
	if err != nil {
		s.t.Errorf("encode an answer: %v", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", "req_stripetest")
	w.WriteHeader(a.status)
	_, _ = w.Write(raw)
}
