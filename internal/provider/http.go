package provider

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"payments/internal/text"
)

// An answer of the provider is a few hundred bytes; a lookup by key has one operation.
const maxAnswer = 256 << 10

// HTTPConfig of an HTTP provider. Each zero value has a default.
type HTTPConfig struct {
	Name     string           // "simulator"; the value of the metrics' provider label
	Timeout  time.Duration    // 2 s: of a whole call, from dial to the answer's last byte
	MaxConns int              // 64: connections to the provider; further calls wait inside their Timeout
	TLS      *tls.Config      // for an https base URL
	Now      func() time.Time // time.Now
}

// HTTP speaks the API of provider/simulator.
type HTTP struct {
	base   *url.URL
	name   string
	client *http.Client
	limit  time.Duration
	now    func() time.Time

	account atomic.Pointer[string] // the id of the ledger that Account named last
}

var _ Provider = (*HTTP)(nil)

// NewHTTP takes the provider's base URL, such as http://127.0.0.1:8090. Its
// error is one sentence that does not repeat the URL, which may hold a password.
func NewHTTP(baseURL string, cfg HTTPConfig) (*HTTP, error) {
	base, err := url.Parse(baseURL)
	switch {
	case err != nil:
		return nil, errors.New("the provider's URL cannot be parsed")
	case base.Scheme != "http" && base.Scheme != "https":
		return nil, errors.New("the provider's URL must begin with http:// or https://")
	case base.Hostname() == "":
		return nil, errors.New("the provider's URL must name a host")
	case base.User != nil || base.RawQuery != "" || base.ForceQuery || base.Fragment != "":
		return nil, errors.New("the provider's URL must have no user, query or fragment")
	case cfg.Timeout < 0 || cfg.MaxConns < 0:
		return nil, errors.New("the provider's timeout and number of connections must not be negative")
	}
	if cfg.Name == "" {
		cfg.Name = "simulator"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 64
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	transport := &http.Transport{
		DialContext:            (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        cfg.TLS,
		MaxConnsPerHost:        cfg.MaxConns,
		MaxIdleConns:           cfg.MaxConns,
		MaxIdleConnsPerHost:    cfg.MaxConns,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true,
	}
	return &HTTP{
		base:  base,
		name:  cfg.Name,
		limit: cfg.Timeout,
		now:   cfg.Now,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func (h *HTTP) Name() string { return h.name }

// Close ends idle connections; calls under way are not touched.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// accountHeader names the ledger that a request is for: another one answers 421 and
// does nothing.
const (
	accountHeader = "Provider-Account"
	accountPath   = "/v1/account"
)

// Account asks for the ledger's id, and holds every later request to it.
func (h *HTTP) Account(ctx context.Context) (string, error) {
	a, err := h.call(ctx, http.MethodGet, accountPath, nil, "", nil)
	if err == nil && a.status != http.StatusOK {
		err = a.failure()
	}
	var got struct{ ID, Object string }
	if err == nil {
		err = a.decode(&got)
	}
	if err == nil && (got.Object != "account" || got.ID == "" || Printable(got.ID, 200) != got.ID) {
		err = errors.New("the provider's answer is not an account")
	}
	if err != nil {
		return "", fmt.Errorf("read the provider's account: %w", err)
	}
	h.account.Store(&got.ID)
	return h.name + ":" + got.ID, nil
}

func (h *HTTP) Execute(ctx context.Context, op Operation) Result {
	path, body, err := executeRequest(op)
	if err != nil {
		return unknown(false, "%s not sent: %w", op.Type, err)
	}
	a, err := h.call(ctx, http.MethodPost, path, nil, op.Key, body)
	if err != nil {
		return unknown(a.connections > 0, "%s %s: %w", op.Type, op.Reference, err)
	}
	switch a.status {
	case http.StatusOK, http.StatusCreated, http.StatusPaymentRequired:
		var got operationAnswer
		if err := a.decode(&got); err != nil {
			return unknown(true, "%s %s: %w", op.Type, op.Reference, err)
		}
		r := got.result(op)
		if declined := a.status == http.StatusPaymentRequired; r.Outcome != Unknown && declined != (r.Outcome == Rejected) {
			return unknown(true, "%s %s: the provider's status %d contradicts its answer", op.Type, op.Reference, a.status)
		}
		return r
	}
	// net/http resends by itself when a kept-alive connection dies under a
	// request with an Idempotency-Key. The error then answers the second
	// sending; the first may still be applied.
	inFlight := !refused(a.status) || a.connections > 1
	return a.astray(unknown(inFlight, "%s %s: %w", op.Type, op.Reference, a.failure()))
}

// astray adds what an answer says about where the request went.
func (a answer) astray(r Result) Result {
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		r.Code = CodeAccessRefused
	case http.StatusNotFound, http.StatusMisdirectedRequest: // a URL of another server; another ledger
		r.Code = CodeOtherAccount
	}
	return r
}

// refused tells which answers come from a provider that did not do it. A
// gateway's 502 and 504, a 408 and anything unheard of say nothing of what
// happened behind them.
func refused(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusNotImplemented, http.StatusServiceUnavailable:
		return true
	}
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout
}

func (h *HTTP) Lookup(ctx context.Context, op Operation) Result {
	if op.Key == "" || op.Reference == "" || op.Type == "" {
		return unknown(false, "lookup not sent: it needs a reference, a type and a key")
	}
	query := url.Values{"reference": {op.Reference}, "type": {string(op.Type)}, "idempotency_key": {op.Key}}
	a, err := h.call(ctx, http.MethodGet, "/v1/operations", query, "", nil)
	if err == nil && a.status != http.StatusOK {
		err = a.failure()
	}
	var list struct {
		Object string             `json:"object"`
		Data   *[]operationAnswer `json:"data"`
	}
	if err == nil {
		err = a.decode(&list)
	}
	if err == nil && (list.Object != "list" || list.Data == nil || len(*list.Data) > 1) {
		err = errors.New("the provider's answer is not a list of at most one operation")
	}
	if err != nil {
		return a.astray(unknown(false, "look up %s %s: %w", op.Type, op.Reference, err))
	}
	if len(*list.Data) == 0 {
		return Result{Outcome: NotFound}
	}
	r := (*list.Data)[0].result(op)
	r.InFlight = false
	return r
}

// executeRequest names the route and the body of op.
func executeRequest(op Operation) (path string, body []byte, err error) {
	type members struct {
		Reference     string `json:"reference"`
		Authorization string `json:"authorization,omitempty"`
		Capture       string `json:"capture,omitempty"`
		Amount        int64  `json:"amount,omitempty"`
		Currency      string `json:"currency,omitempty"`
		PaymentMethod string `json:"payment_method,omitempty"`
	}
	if op.Key == "" || op.Reference == "" {
		return "", nil, errors.New("it needs a key and a reference")
	}
	m := members{Reference: op.Reference, Amount: op.Amount, Currency: op.Currency}
	switch op.Type {
	case Authorization:
		path, m.PaymentMethod = "/v1/authorizations", op.PaymentMethod
	case Capture:
		path, m.Authorization = "/v1/captures", op.Parent
	case Void:
		path, m = "/v1/voids", members{Reference: op.Reference, Authorization: op.Parent}
	case Refund:
		path, m.Capture = "/v1/refunds", op.Parent
	default:
		return "", nil, fmt.Errorf("%q is no type of operation", op.Type)
	}
	if op.Parent == "" && op.Type != Authorization {
		return "", nil, errors.New("it needs the id of the operation it acts on")
	}
	body, err = json.Marshal(m)
	return path, body, err
}

// answer is a complete answer, or with an error as much as is known of one.
type answer struct {
	status      int
	contentType string
	body        []byte
	connections int64 // that a sending of this request was given
}

// call counts connections and not written requests: a write is reported only
// after some of its bytes may have arrived.
func (h *HTTP) call(ctx context.Context, method, path string, query url.Values, key string, body []byte) (answer, error) {
	return h.callUpTo(ctx, maxAnswer, method, path, query, key, body)
}

// callUpTo refuses an answer of more than most bytes.
func (h *HTTP) callUpTo(ctx context.Context, most int64, method, path string, query url.Values, key string, body []byte) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	var connections atomic.Int64
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connections.Add(1) },
	})
	target := h.base.JoinPath(path)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	if account := h.account.Load(); account != nil && path != accountPath {
		req.Header.Set(accountHeader, *account)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return answer{connections: connections.Load()}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, contentType: resp.Header.Get("Content-Type"), connections: connections.Load()}
	if a.status < http.StatusOK { // behind 101 the connection is another protocol's, and no deadline ends the reading
		return a, a.failure()
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(a.body)) > most {
		err = fmt.Errorf("the provider's answer is larger than %d bytes", most)
	}
	if err != nil {
		return a, fmt.Errorf("read the provider's answer: %w", err)
	}
	return a, nil
}

func (a answer) decode(into any) error {
	if t, _, err := mime.ParseMediaType(a.contentType); err != nil || t != "application/json" {
		return fmt.Errorf("the provider's answer (%d) is not JSON", a.status)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("the provider's answer (%d) is not the expected JSON: %w", a.status, err)
	}
	return nil
}

// failure describes an answer that is an error, by the provider's own code and
// sentence if it gave any.
func (a answer) failure() error {
	var e struct{ Code, Message string }
	if a.decode(&e) == nil && e.Code != "" {
		return fmt.Errorf("the provider answered %d %s: %s", a.status, Printable(e.Code, 64), Printable(e.Message, 256))
	}
	return fmt.Errorf("the provider answered %d", a.status)
}

// Printable keeps what a provider wrote short and on one line, for logs and answers.
func Printable(s string, limit int) string { return text.Line(s, limit) }
