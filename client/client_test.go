package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// served is what a scripted service answers, one function a try; the last goes on
// for ever. It runs in synctest's time, so no pause is waited out.
type served struct {
	answers []reply
	seen    []*http.Request
	bodies  []string
	at      []time.Duration // since the first
	began   time.Time
}

func (s *served) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	s.seen, s.bodies, s.at = append(s.seen, r), append(s.bodies, string(body)), append(s.at, time.Since(s.began))
	status, header, content, err := s.answers[min(len(s.seen), len(s.answers))-1](r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(content)}, nil
}

type reply func(*http.Request) (status int, header http.Header, body io.Reader, err error)

func says(status int, body string, header ...string) reply {
	return func(*http.Request) (int, http.Header, io.Reader, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		if status >= 400 {
			h.Set("Content-Type", "application/problem+json")
		}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return status, h, strings.NewReader(body), nil
	}
}

var errCut = errors.New("the connection was cut")

func cut(*http.Request) (int, http.Header, io.Reader, error) { return 0, nil, nil, errCut }

// cutWithin cuts in the middle of an answer.
func cutWithin(*http.Request) (int, http.Header, io.Reader, error) {
	return http.StatusAccepted, http.Header{}, io.MultiReader(strings.NewReader(`{"id": "pay_`), failing{}), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

func speaking(t *testing.T, s *served, options ...Option) *Client {
	t.Helper()
	c, err := New("http://payments.test", "sk_test_1", append(options, WithHTTPClient(&http.Client{Transport: s}))...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const accepted = `{"id": "pay_1", "status": "processing", "failure": null, "of_a_later_version": 1}`

func unavailable(retryAfter string) reply {
	return says(503, `{"code": "service_unavailable", "status": 503}`, "Retry-After", retryAfter)
}

func TestOneKeyOverAllTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &served{answers: []reply{
			cut, cutWithin, unavailable("1"), says(202, accepted, "Read-After", "token"),
		}}
		a, err := speaking(t, s).CreatePayment(t.Context(), PaymentRequest{Amount: 900}, nil)
		if err != nil || a.Value.ID != "pay_1" || a.Value.Failure != nil || a.Tries != 4 || a.ReadAfter() != "token" {
			t.Fatalf("%+v, %v", a, err)
		}
		for i, r := range s.seen {
			if key := r.Header.Get("Idempotency-Key"); len(key) < 20 || key != a.IdempotencyKey {
				t.Errorf("try %d has the key %q and the answer tells of %q", i+1, key, a.IdempotencyKey)
			}
			if r.Header.Get("Authorization") != "Bearer sk_test_1" || r.Header.Get("Payments-Version") != Version || s.bodies[i] != s.bodies[0] || s.bodies[i] == "" {
				t.Errorf("try %d is not the first again: %v %s", i+1, r.Header, s.bodies[i])
			}
		}
		if again, err := speaking(t, s).CreatePayment(t.Context(), PaymentRequest{}, nil); err != nil || again.IdempotencyKey == a.IdempotencyKey {
			t.Errorf("two calls have the key of one: %+v, %v", again, err)
		}
	})
}

func TestTheCallersKey(t *testing.T) {
	s := &served{answers: []reply{says(202, accepted, headerReplayed, "true")}}
	a, err := speaking(t, s).CreateRefund(t.Context(), "pay_1", RefundRequest{}, &CreateRefundParams{IdempotencyKey: "mine"})
	if err != nil || !a.Replayed() || a.IdempotencyKey != "mine" || s.seen[0].Header.Get("Idempotency-Key") != "mine" {
		t.Errorf("%+v, %v, %v", a, err, s.seen[0].Header)
	}
	if s.bodies[0] != "{}" || s.seen[0].URL.Path != "/v1/payments/pay_1/refunds" {
		t.Errorf("%s %s", s.seen[0].URL, s.bodies[0])
	}
}

func TestPausesGrowAndHonorRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Retry
		s := &served{answers: []reply{cut, cut, unavailable("7"), cut, says(200, `{}`)}}
		c := speaking(t, s, WithBackoff(100*time.Millisecond, 300*time.Millisecond), WithRetryFunc(func(r Retry) { told = append(told, r) }))
		if _, err := c.GetPayment(t.Context(), "pay_1", nil); err != nil {
			t.Fatal(err)
		}
		for i, bounds := range [][2]time.Duration{{0, 100e6}, {0, 200e6}, {7e9, 7300e6}, {0, 300e6}} {
			pause := s.at[i+1] - s.at[i]
			if pause < bounds[0] || pause >= bounds[1] {
				t.Errorf("the pause after try %d was %s, want between %s and %s", i+1, pause, bounds[0], bounds[1])
			}
			if told[i].Pause != pause || told[i].Try != i+1 || told[i].Path != "/v1/payments/pay_1" {
				t.Errorf("told was %+v of a pause of %s", told[i], pause)
			}
		}
		if p, ok := errors.AsType[*ProblemError](told[2].Err); !ok || p.Code != ProblemCodeServiceUnavailable {
			t.Errorf("the third try came to nothing by %v", told[2].Err)
		}
	})
}

func TestRetryAfterIsUnderstood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for given, want := range map[string]time.Duration{
			"": 0, "7": 7 * time.Second, "soon": 0, "-1": 0, "1.5": 0, "2147483647": maxRetryAfter, "99999999999999999999": 0,
			time.Now().Add(time.Minute).UTC().Format(http.TimeFormat):  time.Minute,
			time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
		} {
			if got := retryAfter(http.Header{"Retry-After": {given}}); got != want {
				t.Errorf("Retry-After: %s is %s, want %s", given, got, want)
			}
		}
	})
}

func TestPausesAreRandom(t *testing.T) {
	p := retryPolicy{first: time.Second, most: time.Minute}
	seen := map[time.Duration]bool{}
	for range 100 {
		seen[p.pause(3, 0)] = true
	}
	if len(seen) < 90 {
		t.Errorf("a hundred clients come back at %d times", len(seen))
	}
	if pause := p.pause(1000, 0); pause < 0 || pause >= time.Minute {
		t.Errorf("the thousandth pause is %s", pause)
	}
}

func TestWhatIsRepeated(t *testing.T) {
	refusal := func(status int, code string) reply {
		return says(status, fmt.Sprintf(`{"code": %q, "status": %d}`, code, status))
	}
	pay := func(ctx context.Context, c *Client) error {
		_, err := c.CreatePayment(ctx, PaymentRequest{}, nil)
		return err
	}
	cancel := func(ctx context.Context, c *Client) error { _, err := c.CancelPayment(ctx, "pay_1", nil); return err }
	act := func(ctx context.Context, c *Client) error {
		_, err := c.ActOnSaga(ctx, "sag_1", "retry", SagaActRequest{Reason: "why"})
		return err
	}
	remove := func(ctx context.Context, c *Client) error {
		_, err := c.DeleteWebhookEndpoint(ctx, "whe_1")
		return err
	}
	for name, c := range map[string]struct {
		call   func(context.Context, *Client) error
		answer reply
		tries  int
	}{
		"a key in use":                 {pay, refusal(409, "idempotency_key_in_use"), 3},
		"an order under way":           {pay, refusal(409, "order_in_progress"), 1},
		"a key of another request":     {pay, refusal(422, "idempotency_key_reused"), 1},
		"a field":                      {pay, refusal(400, "validation_failed"), 1},
		"an unauthenticated caller":    {pay, refusal(401, "unauthenticated"), 1},
		"too many":                     {pay, refusal(429, "rate_limited"), 3},
		"an error of the service":      {pay, refusal(500, "internal_error"), 3},
		"a proxy without a service":    {pay, says(502, `<html>`, "Content-Type", "text/html"), 3},
		"a cut":                        {pay, cut, 3},
		"a cut of an action":           {cancel, cut, 3},
		"a cut of a removal":           {remove, cut, 3},
		"a cut of an operator's act":   {act, cut, 1},
		"an operator's, refused early": {act, refusal(503, "service_unavailable"), 3},
		"a redirection":                {pay, says(308, "", "Location", "https://elsewhere.test/"), 1},
		"no JSON":                      {pay, says(202, "<html>"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &served{answers: []reply{c.answer}}
				if err := c.call(t.Context(), speaking(t, s, WithTries(3))); err == nil || len(s.seen) != c.tries {
					t.Errorf("%d tries and %v, want %d tries", len(s.seen), err, c.tries)
				}
			})
		})
	}
}

func TestErrorsTellTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &served{answers: []reply{cut}}
		_, err := speaking(t, s, WithTries(2)).CreatePayment(t.Context(), PaymentRequest{}, nil)
		lost, ok := errors.AsType[*NoAnswerError](err)
		if !ok || lost.IdempotencyKey != s.seen[0].Header.Get("Idempotency-Key") || lost.Tries != 2 || !errors.Is(err, errCut) {
			t.Errorf("%+v, %v", lost, err)
		}

		s = &served{answers: []reply{says(400, `{"status": 400, "code": "validation_failed",
			"detail": "The payment is not valid.", "request_id": "req_1", "errors": [{"pointer": "/amount", "code": "amount_mismatch", "message": "must equal the sum of the lines"}]}`)}}
		_, err = speaking(t, s).CreatePayment(t.Context(), PaymentRequest{}, &CreatePaymentParams{IdempotencyKey: "mine"})
		p, ok := errors.AsType[*ProblemError](err)
		if !ok || p.Code != ProblemCodeValidationFailed || CodeOf(err) != p.Code || p.IdempotencyKey != "mine" || p.Tries != 1 || p.Errors[0].Pointer != "/amount" {
			t.Errorf("%+v, %v", p, err)
		}
		if want := "payments: 400 validation_failed: The payment is not valid. /amount must equal the sum of the lines (amount_mismatch). [req_1]"; err.Error() != want {
			t.Errorf("%s\nwant %s", err, want)
		}
		if CodeOf(errCut) != "" {
			t.Error("what is no problem has a code")
		}
	})
}

func TestTheContextEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// It would have to wait longer than there is time: it says so at once.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s := &served{answers: []reply{unavailable("60")}}
		began := time.Now()
		_, err := speaking(t, s, WithTries(0)).GetPayment(ctx, "pay_1", nil)
		if CodeOf(err) != ProblemCodeServiceUnavailable || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 0 || len(s.seen) != 1 {
			t.Errorf("%v after %s and %d tries", err, time.Since(began), len(s.seen))
		}

		// Without a bound on the tries the context is the only end.
		s = &served{answers: []reply{cut}}
		_, err = speaking(t, s, WithTries(0)).CreatePayment(ctx, PaymentRequest{}, nil)
		if _, lost := errors.AsType[*NoAnswerError](err); !lost || !errors.Is(err, context.DeadlineExceeded) || len(s.seen) < 6 {
			t.Errorf("%v after %d tries", err, len(s.seen))
		}

		// Canceled in a pause.
		ctx, stop := context.WithCancel(t.Context())
		s = &served{answers: []reply{unavailable("60")}}
		c := speaking(t, s, WithRetryFunc(func(Retry) { time.AfterFunc(time.Second, stop) }))
		began = time.Now()
		if _, err = c.GetPayment(ctx, "pay_1", nil); !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestParametersAreSent(t *testing.T) {
	s := &served{answers: []reply{says(304, "", "ETag", `"1"`)}}
	a, err := speaking(t, s).ListPayments(t.Context(), &ListPaymentsParams{
		Status: []PaymentStatus{PaymentStatusFailed, PaymentStatusCanceled}, AmountMin: 12, Q: "a&b=c/ü",
		CreatedFrom: time.Date(2026, 11, 24, 1, 2, 3, 0, time.FixedZone("", 3600)), Limit: 5, Expand: Expand{"refunds"},
		ReadAfter: "token", IfNoneMatch: `"1"`,
	})
	if err != nil || !a.NotModified() || a.ETag() != `"1"` {
		t.Fatalf("%+v, %v", a, err)
	}
	q := s.seen[0].URL.Query()
	for name, want := range map[string]string{
		"status": "failed,canceled", "amount_min": "12", "q": "a&b=c/ü", "created_from": "2026-11-24T01:02:03+01:00", "limit": "5", "expand": "refunds",
	} {
		if q.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, q.Get(name), want)
		}
	}
	if len(q) != 6 || s.seen[0].Header.Get("Read-After") != "token" || s.seen[0].Header.Get("If-None-Match") != `"1"` {
		t.Errorf("%v %v", q, s.seen[0].Header)
	}
	_, _ = speaking(t, s).GetPayment(t.Context(), "../keys?x=1", nil)
	if got := s.seen[1].URL.RequestURI(); got != "/v1/payments/..%2Fkeys%3Fx=1" {
		t.Errorf("an id leads to %s", got)
	}
}

func TestPagesAreWalked(t *testing.T) {
	page := func(r *http.Request) (int, http.Header, io.Reader, error) {
		cursor := r.URL.Query().Get("cursor")
		next, ids := any("second"), []string{"pay_1", "pay_2"}
		if cursor == "second" {
			next, ids = nil, []string{"pay_3"}
		}
		var data []map[string]string
		for _, id := range ids {
			data = append(data, map[string]string{"id": id})
		}
		b, err := json.Marshal(map[string]any{"object": "list", "data": data, "has_more": next != nil, "next_cursor": next})
		if err != nil {
			return 0, nil, nil, err
		}
		return says(200, string(b))(r)
	}
	s := &served{answers: []reply{page}}
	all := speaking(t, s).Payments(t.Context(), &ListPaymentsParams{Customer: "cust-1", IfNoneMatch: `"1"`})
	for range 2 { // it can be walked again
		var ids []string
		for p, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, p.ID)
		}
		if !slices.Equal(ids, []string{"pay_1", "pay_2", "pay_3"}) {
			t.Errorf("%v", ids)
		}
	}
	for range all {
		break
	}
	if len(s.seen) != 5 {
		t.Errorf("%d pages were read for two walks and the first item", len(s.seen))
	}
	for _, r := range s.seen {
		if r.URL.Query().Get("customer") != "cust-1" || r.Header.Get("If-None-Match") != "" {
			t.Errorf("%s %v", r.URL, r.Header)
		}
	}

	s = &served{answers: []reply{page, says(403, `{"status": 403, "code": "forbidden"}`)}}
	var items, failures int
	for _, err := range speaking(t, s).Payments(t.Context(), nil) {
		if items++; err != nil {
			failures++
			if CodeOf(err) != ProblemCodeForbidden {
				t.Error(err)
			}
		}
	}
	if items != 3 || failures != 1 {
		t.Errorf("%d items, %d of them errors", items, failures)
	}

	same := says(200, `{"data": [], "next_cursor": "same"}`)
	s = &served{answers: []reply{same, same, says(403, `{}`)}}
	for _, err := range speaking(t, s).Payments(t.Context(), &ListPaymentsParams{Cursor: "same"}) {
		if !errors.Is(err, errStuck) {
			t.Errorf("a circle of pages: %v", err)
		}
	}
}

func TestStreamsAreTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &served{answers: []reply{unavailable("1"), says(200, "id\npay_1\n", "Content-Type", "text/csv")}}
		resp, err := speaking(t, s).ListPaymentsCSV(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != "id\npay_1\n" || s.seen[1].Header.Get("Accept") != "text/csv" {
			t.Errorf("%q, %v, %v", b, err, s.seen[1].Header)
		}
	})
}

func TestAddressesAndKeysAreChecked(t *testing.T) {
	for _, address := range []string{"", "payments.test", "ftp://payments.test", "http://", "http://payments.test/?a=1", "http://a b"} {
		if _, err := New(address, ""); err == nil {
			t.Errorf("%q is taken for an address", address)
		}
	}
	if _, err := New("http://payments.test", "sk_test_1\nX: y"); err == nil || strings.Contains(err.Error(), "sk_test") {
		t.Errorf("a key with a line break: %v", err)
	}
	s := &served{answers: []reply{says(200, `{}`)}}
	c, err := New("https://payments.test/below/", "", WithHTTPClient(&http.Client{Transport: s}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetPayment(t.Context(), "pay_1", nil); err != nil || s.seen[0].URL.Path != "/below/v1/payments/pay_1" || s.seen[0].Header["Authorization"] != nil {
		t.Errorf("%v %v", s.seen[0].URL, err)
	}
}

func TestWait(t *testing.T) {
	for d, want := range map[time.Duration]string{10 * time.Second: "wait=10", 1500 * time.Millisecond: "wait=2", 0: "wait=0"} {
		if got := Wait(d); got != want {
			t.Errorf("%s is %s", d, got)
		}
	}
}
