package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client is safe for concurrent use; New makes one.
type Client struct {
	base   *url.URL
	apiKey string
	http   *http.Client
	retry  retryPolicy
	told   func(Retry)
}

// Option of New.
type Option func(*Client)

// Version of the API that the client was made for, and that answers its requests.
const Version = "2026-11-28"

// tryTimeout bounds one try, the reading of its answer included. It is longer than
// the longest wait that Prefer can ask for, and does not bound a body that is streamed.
const tryTimeout = 45 * time.Second

// New gives a client of the service at baseURL, http or https. An empty key sends
// none, which the service takes for its open routes alone.
func New(baseURL, apiKey string, options ...Option) (*Client, error) {
	base, err := url.Parse(strings.TrimSuffix(baseURL, "/"))
	if err != nil {
		return nil, fmt.Errorf("the service's address: %w", err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("the service's address has to be http:// or https://, a host, and no query")
	}
	if strings.ContainsFunc(apiKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the API key has characters that no key has")
	}
	c := &Client{
		base: base, apiKey: apiKey, told: func(Retry) {},
		retry: retryPolicy{tries: 5, first: 100 * time.Millisecond, most: 5 * time.Second},
		http: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100,
				IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: tryTimeout,
			},
		},
	}
	for _, o := range options {
		o(c)
	}
	// The key goes to the service and to nobody whom an answer names.
	plain := *c.http
	plain.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &plain
	return c, nil
}

// WithHTTPClient sends through another client, for its transport, certificates or
// tracing. Its Timeout would also end bodies that are streamed.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithTries bounds how often a call is sent, the first time included: 5 without
// this option, and until its context ends with 0.
func WithTries(n int) Option { return func(c *Client) { c.retry.tries = n } }

// WithBackoff sets the longest pause before the first repetition and before any:
// 100 ms, doubling, and 5 s without this option. A pause is random between nothing
// and that, so that clients that failed together do not come back together.
func WithBackoff(first, most time.Duration) Option {
	return func(c *Client) { c.retry.first, c.retry.most = first, most }
}

// WithRetryFunc tells of each repetition before its pause. The function is called
// from the goroutine of the call.
func WithRetryFunc(told func(Retry)) Option { return func(c *Client) { c.told = told } }

// Retry is a try that came to nothing and is going to be repeated.
type Retry struct {
	Method, Path string
	Try          int           // counts from 1
	Pause        time.Duration // until the next
	Err          error         // a *ProblemError or a *NoAnswerError
}

// Wait is a Prefer for an answer that is held until there is an outcome, for at
// most d; the service grants 30 seconds at most.
func Wait(d time.Duration) Prefer {
	return fmt.Sprintf("wait=%d", int64((d+time.Second-1)/time.Second))
}
