package provider_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"payments/internal/provider"
	"payments/internal/provider/providertest"
)

const goodAnswer = `{"id":"op_1","reference":"pay_1","type":"authorization","status":"succeeded","amount":4998,"currency":"EUR","created":"2026-11-24T12:00:00.000000Z","idempotency_key":"k"}`

func TestAnswersThatAreNotBelieved(t *testing.T) {
	op := authorization("k", "pm_card_visa")
	change := func(from, to string) string { return strings.Replace(goodAnswer, from, to, 1) }
	for name, tc := range map[string]struct {
		status   int
		body     string
		inFlight bool
	}{
		"not JSON":             {201, "<html>hello</html>", true},
		"truncated":            {201, goodAnswer[:len(goodAnswer)-1], true},
		"trailing bytes":       {201, goodAnswer + "x", true},
		"too large":            {201, goodAnswer + strings.Repeat(" ", 300<<10), true},
		"empty object":         {201, "{}", true},
		"null":                 {201, "null", true},
		"no id":                {201, change("op_1", ""), true},
		"other reference":      {201, change("pay_1", "pay_2"), true},
		"other amount":         {201, change("4998", "4999"), true},
		"float amount":         {201, change("4998", "4998.5"), true},
		"other currency":       {201, change("EUR", "USD"), true},
		"other type":           {201, change(`"authorization"`, `"capture"`), true},
		"other key":            {201, change(`"k"`, `"l"`), true},
		"other status":         {201, change("succeeded", "pending"), true},
		"decline without code": {402, change("succeeded", "declined"), true},
		"402 but succeeded":    {402, goodAnswer, true},
		"201 but declined":     {201, change(`"status":"succeeded"`, `"status":"declined","code":"card_declined"`), true},
		"bare 402":             {402, "", true},
		"202":                  {202, goodAnswer, true},
		"204":                  {204, "", true},
		"redirect":             {307, "", true},
		"request timeout":      {408, "", true},
		"bad gateway":          {502, "", true},
		"gateway timeout":      {504, "", true},
		"unheard of":           {520, "", true},
		"internal error":       {500, "", false},
		"unavailable":          {503, "", false},
		"too many requests":    {429, "", false},
		"in use":               {409, "", false},
		"reused":               {422, `{"code":"idempotency_key_reused","message":"no"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newHTTP(t, answering(t, tc.status, tc.body, "application/json"), time.Minute)
			want(t, "execute", p.Execute(t.Context(), op), provider.Unknown, "", tc.inFlight)
			want(t, "lookup", p.Lookup(t.Context(), op), provider.Unknown, "", false)
		})
	}
	// A wrong key, or a URL of another server: the operation may have been done all the same.
	for status, code := range map[int]string{
		401: provider.CodeAccessRefused, 403: provider.CodeAccessRefused, 404: provider.CodeOtherAccount, 421: provider.CodeOtherAccount,
	} {
		for _, body := range []string{"", `<html>Not here.</html>`, `{"code":"no","message":"No."}`} {
			p := newHTTP(t, answering(t, status, body, "text/html"), time.Minute)
			want(t, "execute", p.Execute(t.Context(), op), provider.Unknown, code, false)
			want(t, "lookup", p.Lookup(t.Context(), op), provider.Unknown, code, false)
		}
	}
	p := newHTTP(t, answering(t, 201, goodAnswer, "application/json"), time.Minute)
	want(t, "the good answer", p.Execute(t.Context(), op), provider.Succeeded, "", false)
	captured := strings.Replace(goodAnswer, `"authorization"`, `"capture","parent":"op_0"`, 1)
	p = newHTTP(t, answering(t, 201, captured, "application/json"), time.Minute)
	for parent, outcome := range map[string]provider.Outcome{"op_0": provider.Succeeded, "op_9": provider.Unknown} {
		r := p.Execute(t.Context(), under(provider.Result{OperationID: parent}, provider.Capture, "k", 4998))
		want(t, "capture of "+parent, r, outcome, "", outcome == provider.Unknown)
	}
	p = newHTTP(t, answering(t, 201, goodAnswer, "text/plain"), time.Minute)
	want(t, "as text", p.Execute(t.Context(), op), provider.Unknown, "", true)
}

func TestLookupAnswersThatAreNotBelieved(t *testing.T) {
	op := authorization("k", "pm_card_visa")
	for body, outcome := range map[string]provider.Outcome{
		`{"object":"list","data":[]}`:                   provider.NotFound,
		`{"object":"list","data":[` + goodAnswer + `]}`: provider.Succeeded,
		`{}`:                             provider.Unknown,
		`{"object":"list"}`:              provider.Unknown,
		`{"object":"list","data":null}`:  provider.Unknown,
		`{"data":[]}`:                    provider.Unknown,
		`[]`:                             provider.Unknown,
		`{"object":"list","data":[{}]}`:  provider.Unknown,
		`{"object":"list","data":[]} []`: provider.Unknown,
		`{"object":"list","data":[` + goodAnswer + `,` + goodAnswer + `]}`:                                provider.Unknown,
		`{"object":"list","data":[` + strings.Replace(goodAnswer, `,"idempotency_key":"k"`, "", 1) + `]}`: provider.Unknown,
	} {
		p := newHTTP(t, answering(t, 200, body, "application/json; charset=utf-8"), time.Minute)
		if got := p.Lookup(t.Context(), op); got.Outcome != outcome {
			t.Errorf("%s gives %+v, want %s", body, got, outcome)
		}
	}
}

// answering fails the test if a redirect is followed.
func answering(t *testing.T, status int, body, contentType string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/elsewhere") {
			t.Error("a redirect was followed")
			return
		}
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// scripted is a server that does with each request, in the order of arrival,
// what the script says.
type scripted struct {
	listener net.Listener
	mu       sync.Mutex
	script   []string
	served   sync.WaitGroup
}

const (
	dies      = "dies"              // reads the request and closes the connection
	diesFully = "dies and is gone"  // and refuses every further connection
	breaks    = "breaks the answer" // closes in the middle of the body
)

func newScripted(t *testing.T, script ...string) *scripted {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{listener: listener, script: script}
	s.served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.served.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); s.served.Wait() })
	return s
}

func (s *scripted) url() string { return "http://" + s.listener.Addr().String() }

func (s *scripted) serve(conn net.Conn) {
	defer conn.Close()
	for in := bufio.NewReader(conn); ; {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		s.mu.Lock()
		act := dies
		if len(s.script) > 0 {
			act, s.script = s.script[0], s.script[1:]
		}
		s.mu.Unlock()
		switch act {
		case dies:
			return
		case diesFully:
			s.listener.Close()
			return
		case breaks:
			fmt.Fprintf(conn, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(goodAnswer), goodAnswer[:50])
			return
		default:
			fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", act, len(goodAnswer), goodAnswer)
		}
	}
}

func TestWhatMayStillBeApplied(t *testing.T) {
	op := authorization("k", "pm_card_visa")
	const ok, failed = "201 Created", "500 Internal Server Error"
	for name, tc := range map[string]struct {
		script   []string
		first    provider.Outcome // of a call before; 0 for none
		outcome  provider.Outcome
		inFlight bool
	}{
		"dies after reading":             {[]string{dies}, 0, provider.Unknown, true},
		"breaks off its answer":          {[]string{breaks}, 0, provider.Unknown, true},
		"answers with an error":          {[]string{failed}, 0, provider.Unknown, false},
		"resent by net/http, done":       {[]string{ok, dies, ok}, provider.Succeeded, provider.Succeeded, false},
		"resent by net/http, 500":        {[]string{ok, dies, failed}, provider.Succeeded, provider.Unknown, true},
		"resent by net/http, dies again": {[]string{ok, dies, dies}, provider.Succeeded, provider.Unknown, true},
		"resent by net/http, refused":    {[]string{ok, diesFully}, provider.Succeeded, provider.Unknown, true},
		"error on a kept connection":     {[]string{ok, failed}, provider.Succeeded, provider.Unknown, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, tc.script...)
			p := newHTTP(t, s.url(), time.Minute)
			if tc.first != 0 {
				want(t, "first", p.Execute(t.Context(), op), tc.first, "", false)
			}
			want(t, "execute", p.Execute(t.Context(), op), tc.outcome, "", tc.inFlight)
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.script) > 0 {
				t.Errorf("left of the script: %q", s.script)
			}
		})
	}
}

func TestASwitchOfProtocolsEndsTheCall(t *testing.T) {
	at := func(url string) provider.Provider { return newHTTP(t, url, time.Second) }
	providertest.LeavesASwitchOfProtocols(t, at, authorization("k", "pm_card_visa"))
}

func TestRefusedConnectionIsNotInFlight(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	p := newHTTP(t, "http://"+listener.Addr().String(), time.Minute)
	op := authorization("k", "pm_card_visa")
	want(t, "execute", p.Execute(t.Context(), op), provider.Unknown, "", false)
	want(t, "lookup", p.Lookup(t.Context(), op), provider.Unknown, "", false)
}

func TestEndedContextIsNotInFlight(t *testing.T) {
	p := newHTTP(t, answering(t, 201, goodAnswer, "application/json"), time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := want(t, "execute", p.Execute(ctx, authorization("k", "pm_card_visa")), provider.Unknown, "", false)
	if !errors.Is(r.Err, context.Canceled) {
		t.Errorf("the cause is %v", r.Err)
	}
}

func TestIncompleteOperationsAreNotSent(t *testing.T) {
	p := newHTTP(t, answering(t, 201, goodAnswer, "application/json"), time.Minute)
	for _, op := range []provider.Operation{
		{},
		{Reference: "pay_1", Type: provider.Authorization},
		{Key: "k", Type: provider.Authorization},
		{Key: "k", Reference: "pay_1", Type: provider.Capture},
		{Key: "k", Reference: "pay_1", Type: "hold"},
	} {
		want(t, "execute", p.Execute(t.Context(), op), provider.Unknown, "", false)
	}
}

func TestNewHTTPNamesWhatIsWrong(t *testing.T) {
	for url, sentence := range map[string]string{
		"":                         "the provider's URL must begin with http:// or https://",
		"ftp://bank":               "the provider's URL must begin with http:// or https://",
		"http://":                  "the provider's URL must name a host",
		"http://u:secret@bank":     "the provider's URL must have no user, query or fragment",
		"http://bank/?key=secret":  "the provider's URL must have no user, query or fragment",
		"http://secret bank:80:80": "the provider's URL cannot be parsed",
	} {
		if _, err := provider.NewHTTP(url, provider.HTTPConfig{}); err == nil || err.Error() != sentence {
			t.Errorf("%q gives %v, want %s", url, err, sentence)
		}
	}
}
