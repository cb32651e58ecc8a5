package stripe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stripe/stripe-go/v85"

	"payments/internal/provider"
)

// Name is this provider's, in events, metrics and the URL of its webhooks.
const Name = "stripe"

// maxAnswer is above a full page of PaymentIntents, each a few KiB.
const maxAnswer = 4 << 20

// Config of a client. Each zero value but Now has a default.
type Config struct {
	URL      string        // https://api.stripe.com; another for a stand-in
	Timeout  time.Duration // 5 s: of a whole call; a lookup may be several requests
	MaxConns int           // 64: connections to Stripe; further calls wait inside their Timeout
	Now      func() time.Time
}

// Client is safe for concurrent use.
type Client struct {
	api       *stripe.Client
	transport *http.Transport
	timeout   time.Duration
	now       func() time.Time
	passes    passes
	test      bool // the key is of test mode, whose objects live mode does not have
}

var _ provider.Provider = (*Client)(nil)

// New takes a secret or restricted key (sk_…, rk_…). Its error is one sentence
// that repeats neither key nor URL.
func New(key string, cfg Config) (*Client, error) {
	if cfg.URL == "" {
		cfg.URL = stripe.APIURL
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 64
	}
	base, err := url.Parse(cfg.URL)
	switch {
	case key == "" || cfg.Now == nil:
		return nil, errors.New("a client of Stripe needs a key and a clock")
	case err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" || base.User != nil:
		return nil, errors.New("the URL of Stripe must be http:// or https:// and a host")
	case cfg.Timeout < 0 || cfg.MaxConns < 0:
		return nil, errors.New("the timeout and the number of connections of Stripe must not be negative")
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
		MaxConnsPerHost:     cfg.MaxConns,
		MaxIdleConns:        cfg.MaxConns,
		MaxIdleConnsPerHost: cfg.MaxConns,
		IdleConnTimeout:     30 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	backend := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		URL: &cfg.URL,
		HTTPClient: &http.Client{
			Transport:     bounded{transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		// The saga alone decides what is sent again, and it writes that down first.
		MaxNetworkRetries: new(int64),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
		EnableTelemetry:   new(bool),
	})
	return &Client{
		api:       stripe.NewClient(key, stripe.WithBackends(&stripe.Backends{API: backend})),
		transport: transport,
		timeout:   cfg.Timeout,
		now:       cfg.Now,
		test:      strings.HasPrefix(key, "sk_test_") || strings.HasPrefix(key, "rk_test_"),
	}, nil
}

func (c *Client) Name() string { return Name }

// Account asks for the account of the key. Test mode is an account of its own: its
// PaymentIntents do not exist in live mode, though the account's id is the same. A
// restricted key needs the right to read its account.
func (c *Client) Account(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	a, err := c.api.V1Accounts.Retrieve(ctx, nil)
	switch {
	case err != nil:
		return "", fmt.Errorf("read the provider's account: %w", cause(err))
	case a.Object != "account" || a.ID == "" || provider.Printable(a.ID, 200) != a.ID:
		return "", errors.New("read the provider's account: the answer is not an account")
	}
	name := Name + ":" + a.ID
	if c.test {
		name += ":test"
	}
	return name, nil
}

// Close ends idle connections; calls under way are not touched.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

func (c *Client) Execute(ctx context.Context, op provider.Operation) provider.Result {
	amount, refusal := stripeAmount(op)
	if refusal != "" {
		return rejected("", "amount_not_supported", refusal)
	}
	if op.Key == "" || op.Reference == "" || op.Parent == "" && op.Type != provider.Authorization {
		return unknown(false, "%s not sent: it needs a key, a reference and what it acts on", op.Type)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// A connection is counted and not a request: a write is reported only after
	// some of its bytes may have arrived.
	var connections atomic.Int64
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connections.Add(1) },
	})
	r, err := c.send(ctx, op, amount)
	if err != nil {
		return failure(op, err, connections.Load())
	}
	return r
}

func (c *Client) send(ctx context.Context, op provider.Operation, amount int64) (provider.Result, error) {
	own := stripe.Params{IdempotencyKey: &op.Key}
	switch op.Type {
	case provider.Authorization:
		i, err := c.api.V1PaymentIntents.Create(ctx, &stripe.PaymentIntentCreateParams{
			Params: own, Amount: &amount, Currency: new(strings.ToLower(op.Currency)),
			CaptureMethod: stripe.String(stripe.PaymentIntentCaptureMethodManual),
			Confirm:       new(true),
			// No customer is here to authenticate: a card that asks for it is declined.
			ErrorOnRequiresAction: new(true),
			PaymentMethod:         &op.PaymentMethod,
			PaymentMethodTypes:    stripe.StringSlice([]string{"card"}),
			Metadata:              metadata(op),
		})
		if err != nil {
			return provider.Result{}, err
		}
		return authorized(op, amount, i), nil
	case provider.Capture:
		i, err := c.api.V1PaymentIntents.Capture(ctx, op.Parent, &stripe.PaymentIntentCaptureParams{
			Params: own, AmountToCapture: &amount, Metadata: map[string]string{metaCapture: op.Key},
		})
		if err != nil {
			return provider.Result{}, err
		}
		return captured(op, amount, i), nil
	case provider.Void:
		i, err := c.api.V1PaymentIntents.Cancel(ctx, op.Parent, &stripe.PaymentIntentCancelParams{Params: own})
		if err != nil {
			return provider.Result{}, err
		}
		return voided(op, i), nil
	case provider.Refund:
		r, err := c.api.V1Refunds.Create(ctx, &stripe.RefundCreateParams{
			Params: own, Amount: &amount, Charge: &op.Parent, Metadata: metadata(op),
		})
		if err != nil {
			return provider.Result{}, err
		}
		return refunded(op, amount, r), nil
	}
	return unknown(false, "%q is no type of operation", op.Type), nil
}

// bounded keeps an answer without end out of memory, and takes no connection that
// became another protocol's: no deadline ends the reading of that.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the provider answered %d", resp.StatusCode)
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	return resp, nil
}

func unknown(inFlight bool, format string, args ...any) provider.Result {
	return provider.Result{Outcome: provider.Unknown, InFlight: inFlight, Err: fmt.Errorf(format, args...)}
}
