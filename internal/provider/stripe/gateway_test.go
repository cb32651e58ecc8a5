package stripe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"payments/internal/provider"
	"payments/internal/provider/providertest"
)

// gateway stands before localstripe and adds what Stripe documents and
// localstripe leaves out: idempotency keys, the codes and objects of errors, the
// bound of refunds, metadata of a capture, and lists by time. It loses answers
// and requests as a test asks for.
type gateway struct {
	t        *testing.T
	upstream string
	client   *http.Client

	mu       sync.Mutex
	saved    map[string]*saved // by idempotency key
	captured map[string]int64  // by PaymentIntent: Stripe's amount_received
	strikes  map[provider.OperationType]providertest.Strike
}

// saved is the answer kept under a key.
type saved struct {
	request string
	done    bool
	answer
}

type answer struct {
	status int
	body   map[string]any
}

func newGateway(t *testing.T, upstream string) (g *gateway, url string) {
	t.Helper()
	transport := &http.Transport{}
	g = &gateway{
		t: t, upstream: upstream, client: &http.Client{Transport: transport},
		saved: map[string]*saved{}, captured: map[string]int64{}, strikes: map[provider.OperationType]providertest.Strike{},
	}
	srv := httptest.NewServer(g)
	t.Cleanup(func() {
		srv.Close()
		transport.CloseIdleConnections()
	})
	return g, srv.URL
}

func (g *gateway) strike(s providertest.Strike, o provider.OperationType) (undo func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.strikes[o] = s
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.strikes, o)
	}
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	if r.Method == http.MethodGet {
		write(w, g.get(r.URL))
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		g.t.Errorf("the body of %s is no form: %v", r.URL.Path, err)
	}
	o := operationAt(r.URL.Path)
	g.mu.Lock()
	struck := g.strikes[o]
	g.mu.Unlock()
	if struck != providertest.Lost {
		a := g.once(r.Header.Get("Idempotency-Key"), r.URL.Path, form, o)
		if struck == "" {
			write(w, a)
			return
		}
	}
	<-r.Context().Done()
}

func operationAt(path string) provider.OperationType {
	switch {
	case strings.HasSuffix(path, "/capture"):
		return provider.Capture
	case strings.HasSuffix(path, "/cancel"):
		return provider.Void
	case path == "/v1/refunds":
		return provider.Refund
	}
	return provider.Authorization
}

// once is Stripe's idempotency, https://docs.stripe.com/api/idempotent_requests.
func (g *gateway) once(key, path string, form url.Values, o provider.OperationType) answer {
	request := path + "?" + form.Encode()
	g.mu.Lock()
	switch s := g.saved[key]; {
	case key == "":
		g.t.Errorf("%s without an Idempotency-Key", path)
	case s == nil:
		g.saved[key] = &saved{request: request}
	case s.request != request:
		g.mu.Unlock()
		return failed(http.StatusBadRequest, "idempotency_error", "", "Keys for idempotent requests can only be used with the same parameters.", nil)
	case !s.done:
		g.mu.Unlock()
		return failed(http.StatusConflict, "idempotency_error", "idempotency_key_in_use", "There is currently another in-progress request using this Idempotent Key.", nil)
	default:
		g.mu.Unlock()
		return s.answer
	}
	g.mu.Unlock()
	a := g.apply(path, form, o)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.saved[key].done, g.saved[key].answer = true, a
	return a
}

func (g *gateway) apply(path string, form url.Values, o provider.OperationType) answer {
	form.Del("error_on_requires_action")
	captureKey := form.Get("metadata[capture_key]")
	if o == provider.Capture {
		form.Del("metadata[capture_key]")
	}
	intent, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/payment_intents/"), "/")
	if a, refused := g.refuse(o, intent, form); refused {
		return a
	}
	a := g.send(http.MethodPost, path, form)
	switch {
	case a.status == http.StatusNotFound:
		param := map[provider.OperationType]string{provider.Authorization: "payment_method", provider.Refund: "charge"}[o]
		return failed(http.StatusNotFound, "invalid_request_error", "resource_missing", "No such object.", map[string]any{"param": param})
	case a.status == http.StatusPaymentRequired:
		code, _ := a.body["error"].(map[string]any)
		charge := g.send(http.MethodGet, "/v1/charges/"+fmt.Sprint(code["charge"]), nil)
		of := g.send(http.MethodGet, "/v1/payment_intents/"+fmt.Sprint(charge.body["payment_intent"]), nil)
		return failed(a.status, "card_error", fmt.Sprint(code["code"]), fmt.Sprint(code["message"]),
			map[string]any{"decline_code": "generic_decline", "payment_intent": of.body})
	case a.status == http.StatusBadRequest && o == provider.Capture:
		return failed(a.status, "invalid_request_error", "amount_too_large", "The amount is larger than the amount capturable.", nil)
	case a.status == http.StatusOK && o == provider.Capture:
		g.mu.Lock()
		g.captured[intent], _ = strconv.ParseInt(form.Get("amount_to_capture"), 10, 64)
		g.mu.Unlock()
		return g.received(g.send(http.MethodPost, "/v1/payment_intents/"+intent, url.Values{"metadata[capture_key]": {captureKey}}))
	}
	return a
}

// refuse holds against the state of things what localstripe does not, or not with
// Stripe's words.
func (g *gateway) refuse(o provider.OperationType, intent string, form url.Values) (a answer, refused bool) {
	switch o {
	case provider.Refund:
		return g.refuseRefund(form)
	case provider.Capture, provider.Void:
		of := g.send(http.MethodGet, "/v1/payment_intents/"+intent, nil)
		state := of.body["status"]
		if of.status == http.StatusOK && state != "requires_capture" && (o == provider.Capture || state == "succeeded" || state == "canceled") {
			return failed(http.StatusBadRequest, "invalid_request_error", "payment_intent_unexpected_state", "This PaymentIntent is in another state.",
				map[string]any{"payment_intent": of.body}), true
		}
	case provider.Authorization:
	}
	return answer{}, false
}

func (g *gateway) refuseRefund(form url.Values) (a answer, refused bool) {
	charge := g.send(http.MethodGet, "/v1/charges/"+form.Get("charge"), nil)
	asked, _ := strconv.ParseFloat(form.Get("amount"), 64)
	whole, _ := charge.body["amount"].(float64)
	back, _ := charge.body["amount_refunded"].(float64)
	if charge.status != http.StatusOK || asked <= whole-back {
		return answer{}, false
	}
	return failed(http.StatusBadRequest, "invalid_request_error", "", "Refund amount is greater than unrefunded amount on charge.",
		map[string]any{"param": "amount"}), true
}

func (g *gateway) get(u *url.URL) answer {
	query := u.Query()
	from, err := strconv.ParseFloat(query.Get("created[gte]"), 64)
	query.Del("created[gte]")
	a := g.send(http.MethodGet, u.Path, query)
	if a.status == http.StatusNotFound {
		return failed(http.StatusNotFound, "invalid_request_error", "resource_missing", "No such object.", nil)
	}
	if data, ok := a.body["data"].([]any); ok && err == nil {
		var since []any
		for _, item := range data {
			if created, _ := item.(map[string]any)["created"].(float64); created >= from {
				since = append(since, item)
			}
		}
		a.body["data"] = since
	}
	return g.received(a)
}

// received adds what was captured to a PaymentIntent.
func (g *gateway) received(a answer) answer {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id, ok := a.body["id"].(string); ok && a.body["object"] == "payment_intent" {
		a.body["amount_received"] = g.captured[id]
	}
	return a
}

func (g *gateway) send(method, path string, form url.Values) (a answer) {
	target, body := g.upstream+path, ""
	if method == http.MethodGet {
		target += "?" + form.Encode()
	} else {
		body = form.Encode()
	}
	// Without the client's context: what has begun is done, whether its client waits or not.
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		g.t.Error(err)
		return answer{status: http.StatusInternalServerError}
	}
	req.Header.Set("Authorization", "Bearer sk_test_12345")
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Error(err)
		return answer{status: http.StatusInternalServerError}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, &a.body)
	}
	if err != nil {
		g.t.Errorf("localstripe answered %s %s with %d %q: %v", method, path, resp.StatusCode, text, err)
	}
	a.status = resp.StatusCode
	return a
}

// failed is an error as Stripe documents it, https://docs.stripe.com/api/errors.
func failed(status int, errorType, code, message string, more map[string]any) answer {
	e := map[string]any{"type": errorType, "message": message}
	if code != "" {
		e["code"] = code
	}
	maps.Copy(e, more)
	return answer{status, map[string]any{"error": e}}
}

func write(w http.ResponseWriter, a answer) {
	var body bytes.Buffer
	_ = json.NewEncoder(&body).Encode(a.body) // of what was decoded before
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = w.Write(body.Bytes())
}
