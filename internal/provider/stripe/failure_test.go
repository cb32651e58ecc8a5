package stripe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"payments/internal/provider"
	"payments/internal/provider/providertest"
)

const reference = "pay_01jqzr8m00e8qs2w5a1b2c3d4e"

func operation(t provider.OperationType) provider.Operation {
	op := provider.Operation{Key: "k", Reference: reference, Type: t, Amount: 4998, Currency: "EUR"}
	switch t {
	case provider.Authorization:
		op.PaymentMethod = "pm_card_visa"
	case provider.Refund:
		op.Parent = "ch_1"
	case provider.Capture, provider.Void:
		op.Parent = "pi_1"
	}
	return op
}

// intent is a PaymentIntent in a state, with more members.
func intent(status, more string) string {
	return fmt.Sprintf(`{"id":"pi_1","object":"payment_intent","amount":4998,"currency":"eur","status":%q,
		"metadata":{"reference":%q,"key":"k","type":"authorization","capture_key":"k"}%s}`, status, reference, more)
}

// refundOf is a refund in a state.
func refundOf(status string) string {
	return fmt.Sprintf(`{"id":"re_1","object":"refund","amount":4998,"currency":"eur","charge":"ch_1","status":%q,
		"metadata":{"reference":%q,"key":"k","type":"refund"}}`, status, reference)
}

func errorBody(errorType, code, more string) string {
	return fmt.Sprintf(`{"error":{"type":%q,"code":%q,"message":"No."%s}}`, errorType, code, more)
}

// answering gives every request the same answer, and counts them.
func answering(t *testing.T, status int, body string) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = &atomic.Int64{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, requests
}

func TestWhatAnAnswerMeans(t *testing.T) {
	const auth, capture, void, refund = provider.Authorization, provider.Capture, provider.Void, provider.Refund
	const succeeded, rejected, unknown = provider.Succeeded, provider.Rejected, provider.Unknown
	const card, invalid, api, idempotency = "card_error", "invalid_request_error", "api_error", "idempotency_error"
	charge := `,"latest_charge":"ch_1"`
	taken := charge + `,"amount_received":4998`
	declined := `,"last_payment_error":{"type":"card_error","code":"card_declined","decline_code":"insufficient_funds","message":"No."}`
	state := func(status, more string) string { return `,"payment_intent":` + intent(status, more) }
	for name, tc := range map[string]struct {
		op       provider.OperationType
		status   int
		body     string
		outcome  provider.Outcome
		code     string
		inFlight bool
	}{
		"held":                     {auth, 200, intent("requires_capture", charge), succeeded, "", false},
		"held, captured since":     {auth, 200, intent("succeeded", taken), succeeded, "", false},
		"held, canceled since":     {auth, 200, intent("canceled", charge), succeeded, "", false},
		"canceled before":          {auth, 200, intent("canceled", ""), rejected, "canceled", false},
		"declined and canceled":    {auth, 200, intent("canceled", charge+declined), rejected, "insufficient_funds", false},
		"declined":                 {auth, 200, intent("requires_payment_method", declined), rejected, "insufficient_funds", false},
		"asks for authentication":  {auth, 200, intent("requires_action", ""), rejected, "authentication_required", false},
		"being processed":          {auth, 200, intent("processing", ""), unknown, "", true},
		"created, not confirmed":   {auth, 200, intent("requires_confirmation", ""), unknown, "", false},
		"a state of tomorrow":      {auth, 200, intent("frozen", ""), unknown, "", false},
		"another key":              {auth, 200, strings.Replace(intent("requires_capture", charge), `"key":"k"`, `"key":"l"`, 1), unknown, "", true},
		"another reference":        {auth, 200, strings.Replace(intent("requires_capture", charge), reference, "pay_2", 1), unknown, "", true},
		"another amount":           {auth, 200, strings.Replace(intent("requires_capture", charge), "4998", "4999", 1), unknown, "", true},
		"another currency":         {auth, 200, strings.Replace(intent("requires_capture", charge), "eur", "usd", 1), unknown, "", true},
		"empty object":             {auth, 200, "{}", unknown, "", true},
		"null":                     {auth, 200, "null", unknown, "", true},
		"not JSON":                 {auth, 200, "<html>", unknown, "", true},
		"without end":              {auth, 200, intent("requires_capture", charge) + strings.Repeat(" ", maxAnswer), unknown, "", true},
		"captured":                 {capture, 200, intent("succeeded", taken), succeeded, "", false},
		"captured another amount":  {capture, 200, intent("succeeded", charge+`,"amount_received":1`), unknown, "", true},
		"captured under another":   {capture, 200, strings.Replace(intent("succeeded", taken), `"capture_key":"k"`, `"capture_key":"l"`, 1), unknown, "", true},
		"captured of another":      {capture, 200, strings.Replace(intent("succeeded", taken), reference, "pay_2", 1), unknown, "", true},
		"voided of another":        {void, 200, strings.Replace(intent("canceled", charge), reference, "pay_2", 1), unknown, "", true},
		"capture being processed":  {capture, 200, intent("processing", ""), unknown, "", true},
		"capture without a charge": {capture, 200, intent("succeeded", `,"amount_received":4998`), unknown, "", true},
		"voided":                   {void, 200, intent("canceled", charge), succeeded, "", false},
		"not voided":               {void, 200, intent("requires_capture", charge), unknown, "", true},
		"refunded":                 {refund, 200, refundOf("succeeded"), succeeded, "", false},
		"refund pending":           {refund, 200, refundOf("pending"), unknown, "", true},
		"refund failed":            {refund, 200, refundOf("failed"), rejected, "refund_failed", false},
		"refund of another":        {refund, 200, strings.Replace(refundOf("succeeded"), "ch_1", "ch_2", 1), unknown, "", true},

		"generic decline":       {auth, 402, errorBody(card, "card_declined", `,"decline_code":"generic_decline"`), rejected, "card_declined", false},
		"insufficient funds":    {auth, 402, errorBody(card, "card_declined", `,"decline_code":"insufficient_funds"`), rejected, "insufficient_funds", false},
		"stolen card":           {auth, 402, errorBody(card, "card_declined", `,"decline_code":"stolen_card"`), rejected, "card_declined", false},
		"a decline of no code":  {auth, 402, errorBody(card, "", ""), rejected, "card_declined", false},
		"no code but a reason":  {auth, 402, errorBody(card, "", `,"decline_code":"insufficient_funds"`), rejected, "insufficient_funds", false},
		"a code and a secret":   {auth, 402, errorBody(card, "expired_card", `,"decline_code":"stolen_card"`), rejected, "card_declined", false},
		"a code, no reason":     {auth, 402, errorBody(card, "expired_card", `,"decline_code":"generic_decline"`), rejected, "expired_card", false},
		"suspected fraud":       {auth, 402, errorBody(card, "card_declined", `,"decline_code":"fraudulent"`), rejected, "card_declined", false},
		"expired card":          {auth, 402, errorBody(card, "expired_card", ""), rejected, "expired_card", false},
		"authentication":        {auth, 402, errorBody(card, "authentication_required", ""), rejected, "authentication_required", false},
		"no such method":        {auth, 400, errorBody(invalid, "resource_missing", `,"param":"payment_method"`), rejected, "invalid_payment_method", false},
		"something missing":     {auth, 400, errorBody(invalid, "resource_missing", `,"param":"on_behalf_of"`), unknown, "", false},
		"method used up":        {auth, 400, errorBody(invalid, "", `,"param":"payment_method"`), rejected, "invalid_payment_method", false},
		"no such currency":      {auth, 400, errorBody(invalid, "", `,"param":"currency"`), rejected, "currency_not_supported", false},
		"too small":             {auth, 400, errorBody(invalid, "amount_too_small", `,"param":"amount"`), rejected, "amount_too_small", false},
		"unknown parameter":     {auth, 400, errorBody(invalid, "parameter_unknown", ""), unknown, "", false},
		"no such authorization": {capture, 404, errorBody(invalid, "resource_missing", `,"param":"intent"`), unknown, provider.CodeUnknownParent, false},
		"nothing to void":       {void, 404, errorBody(invalid, "resource_missing", `,"param":"intent"`), unknown, provider.CodeUnknownParent, false},
		"missing, as a 400":     {refund, 400, errorBody(invalid, "resource_missing", `,"param":"charge"`), unknown, provider.CodeUnknownParent, false},
		"captured already":      {capture, 400, errorBody(invalid, "payment_intent_unexpected_state", state("succeeded", taken)), rejected, "already_captured", false},
		"voided already":        {void, 400, errorBody(invalid, "payment_intent_unexpected_state", state("canceled", charge)), rejected, "already_voided", false},
		"void of a capture":     {void, 400, errorBody(invalid, "payment_intent_unexpected_state", state("succeeded", taken)), rejected, "already_captured", false},
		"capture of a void":     {capture, 400, errorBody(invalid, "payment_intent_unexpected_state", state("canceled", `,"cancellation_reason":null`)), rejected, "authorization_voided", false},
		"expired":               {capture, 400, errorBody(invalid, "payment_intent_unexpected_state", state("canceled", `,"cancellation_reason":"automatic"`)), rejected, "authorization_expired", false},
		"expired charge":        {capture, 400, errorBody(invalid, "charge_expired_for_capture", ""), rejected, "authorization_expired", false},
		"capture of a decline":  {capture, 400, errorBody(invalid, "payment_intent_unexpected_state", state("requires_payment_method", declined)), unknown, "", false},
		"state not told":        {capture, 400, errorBody(invalid, "payment_intent_unexpected_state", ""), unknown, "", false},
		"state in between":      {capture, 400, errorBody(invalid, "payment_intent_unexpected_state", state("processing", "")), unknown, "", false},
		"refund too large":      {refund, 400, errorBody(invalid, "", `,"param":"amount"`), rejected, "refund_exceeds_capture", false},
		"refunded already":      {refund, 400, errorBody(invalid, "charge_already_refunded", ""), rejected, "refund_exceeds_capture", false},
		"no such capture":       {refund, 404, errorBody(invalid, "resource_missing", `,"param":"charge"`), unknown, provider.CodeUnknownParent, false},

		"key of another request": {auth, 400, errorBody(idempotency, "", ""), unknown, "", false},
		"key in use":             {auth, 409, errorBody(idempotency, "idempotency_key_in_use", ""), unknown, "", true},
		"locked":                 {capture, 429, errorBody(invalid, "lock_timeout", ""), unknown, "", false},
		"too many requests":      {auth, 429, errorBody(invalid, "rate_limit", ""), unknown, "", false},
		"wrong API key":          {auth, 401, errorBody(invalid, "api_key_expired", ""), unknown, provider.CodeAccessRefused, false},
		"not permitted":          {auth, 403, errorBody(invalid, "", ""), unknown, provider.CodeAccessRefused, false},
		"refund not permitted":   {refund, 403, errorBody(invalid, "", ""), unknown, provider.CodeAccessRefused, false},
		"internal error":         {auth, 500, errorBody(api, "", ""), unknown, "", true},
		"unavailable":            {auth, 503, errorBody(api, "", ""), unknown, "", true},
		"a gateway's page":       {auth, 502, "<html>", unknown, "", true},
		"error that is none":     {auth, 400, "{}", unknown, "", true},
		"redirect":               {auth, 307, "", unknown, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := answering(t, tc.status, tc.body)
			c := newClient(t, url, time.Minute)
			r := c.Execute(t.Context(), operation(tc.op))
			if r.Outcome != tc.outcome || r.Code != tc.code || r.InFlight != tc.inFlight ||
				(r.Err != nil) != (tc.outcome == unknown) || (r.Message != "") != (tc.outcome == rejected) {
				t.Errorf("%+v, want %s %q, in flight %t", r, tc.outcome, tc.code, tc.inFlight)
			}
			if r.Err != nil && (strings.Contains(r.Err.Error(), testKey) || strings.Contains(r.Err.Error(), "\n")) {
				t.Errorf("error is %q", r.Err)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests of one call", n)
			}
		})
	}
}

// A kept-alive connection that dies under a request makes net/http send it
// again; the refusal then answers the second sending alone.
func TestASecondSendingByTheTransportIsInFlight(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusal := errorBody("invalid_request_error", "rate_limit", "")
	// To its end, else the connection is reset under the writer, who does not send again.
	read := func(conn net.Conn) error {
		r, err := http.ReadRequest(bufio.NewReader(conn))
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
		}
		return err
	}
	respond := func(conn net.Conn) error {
		if err := read(conn); err != nil {
			return err
		}
		_, err := fmt.Fprintf(conn, "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(refusal), refusal)
		return err
	}
	served := make(chan error, 1)
	go func() {
		served <- func() error {
			first, err := l.Accept()
			if err != nil {
				return err
			}
			if err := respond(first); err != nil {
				return err
			}
			if err := read(first); err != nil { // taken, and then the connection dies
				return err
			}
			first.Close()
			second, err := l.Accept()
			if err != nil {
				return err
			}
			defer second.Close()
			return respond(second)
		}()
	}()
	c := newClient(t, "http://"+l.Addr().String(), time.Minute)
	if r := c.Execute(t.Context(), operation(provider.Authorization)); r.Outcome != provider.Unknown || r.InFlight {
		t.Errorf("the first request: %+v", r)
	}
	if r := c.Execute(t.Context(), operation(provider.Authorization)); r.Outcome != provider.Unknown || !r.InFlight {
		t.Errorf("the request that was sent twice: %+v", r)
	}
	l.Close() // which ends a wait for a connection that never came
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

func TestASwitchOfProtocolsEndsTheCall(t *testing.T) {
	at := func(url string) provider.Provider { return newClient(t, url, time.Second) }
	providertest.LeavesASwitchOfProtocols(t, at, operation(provider.Authorization))
}

func TestAmounts(t *testing.T) {
	for _, tc := range []struct {
		currency     string
		minor, sends int64 // sends: 0 for a refusal
	}{
		{"EUR", 4998, 4998},
		{"JPY", 500, 500},
		{"HUF", 1050, 1050},
		{"TWD", 80045, 80045},
		{"ISK", 5, 500},
		{"UGX", 5, 500},
		{"MGA", 500, 5},
		{"MGA", 501, 0},
		{"KWD", 5120, 5120},
		{"BHD", 5124, 0},
		{"TND", 1, 0},
	} {
		op := operation(provider.Authorization)
		op.Currency, op.Amount = tc.currency, tc.minor
		got, refusal := stripeAmount(op)
		if got != tc.sends || (refusal != "") != (tc.sends == 0) {
			t.Errorf("%d %s is sent as %d, %q; want %d", tc.minor, tc.currency, got, refusal, tc.sends)
		}
		if tc.sends == 0 {
			c := newClient(t, nobody(t), time.Minute)
			if r := c.Execute(t.Context(), op); r.Outcome != provider.Rejected || r.Code != "amount_not_supported" {
				t.Errorf("%d %s gives %+v", tc.minor, tc.currency, r)
			}
			if r := c.Lookup(t.Context(), op); r.Outcome != provider.NotFound {
				t.Errorf("the lookup of %d %s gives %+v", tc.minor, tc.currency, r)
			}
		}
	}
}

func TestClientsThatAreNotMade(t *testing.T) {
	for _, tc := range []struct {
		key string
		cfg Config
	}{
		{"", Config{Now: time.Now}},
		{testKey, Config{}},
		{testKey, Config{Now: time.Now, URL: "ftp://stripe"}},
		{testKey, Config{Now: time.Now, URL: "http://u:s3cret@stripe"}},
		{testKey, Config{Now: time.Now, URL: "http://s3cret:port"}},
		{testKey, Config{Now: time.Now, Timeout: -1}},
	} {
		_, err := New(tc.key, tc.cfg)
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), testKey) || errors.Unwrap(err) != nil {
			t.Errorf("%+v gives %v", tc.cfg, err)
		}
	}
}
