package load

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"payments/bench/stack"
)

// Client posts payments of one installation. It is safe for concurrent use.
type Client struct {
	http      *http.Client
	urls      []string
	merchants []stack.Merchant
	skus      int64  // how many articles are ordered in turn
	run       string // tells the keys and references of this client from others'
	next      atomic.Int64
	bodies    sync.Pool
}

// NewClient spreads requests over the services of the installation. All payments order one article.
func NewClient(i *stack.Install) *Client { return NewClientOf(i, 1) }

// NewClientOf orders so many articles in turn, up to stack.SKUs.
func NewClientOf(i *stack.Install, skus int64) *Client {
	c := &Client{
		http: &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
			MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, IdleConnTimeout: time.Minute, DisableCompression: true,
		}},
		merchants: i.Merchants, skus: skus, run: rand.Text()[:8],
	}
	c.bodies.New = func() any { return new(bytes.Buffer) }
	for _, s := range i.Services {
		c.urls = append(c.urls, s.URL)
	}
	return c
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Answer to a payment that was posted.
type Answer struct {
	Merchant   string
	ID         string // empty unless it was accepted
	Status     int
	Succeeded  bool // the outcome was waited for, and it is that
	RetryAfter time.Duration
}

// Accepted says that the payment was made, with or without its outcome.
func (a Answer) Accepted() bool { return a.Status/100 == 2 }

// Shed says that the service refused the attempt because it has too much to do.
func (a Answer) Shed() bool {
	return a.Status == http.StatusServiceUnavailable || a.Status == http.StatusTooManyRequests
}

// Pay posts a fresh payment of merchant m, and waits for its outcome if so asked.
func (c *Client) Pay(ctx context.Context, m int, wait bool) (Answer, error) {
	return c.PayAgain(ctx, m, c.next.Add(1), wait)
}

// PayAgain posts payment n, which is a replay when it was posted before.
func (c *Client) PayAgain(ctx context.Context, m int, n int64, wait bool) (a Answer, err error) {
	merchant := c.merchants[m]
	a.Merchant = merchant.ID
	body, ok := c.bodies.Get().(*bytes.Buffer)
	if !ok {
		body = new(bytes.Buffer)
	}
	defer c.bodies.Put(body)
	body.Reset()
	fmt.Fprintf(body, `{"amount":1800,"currency":"EUR","payment_method":"pm_card_visa","customer":{"reference":"cust-%d","email":"ada@example.com"},`+
		`"order":{"reference":"B-%s-%d","lines":[{"sku":"%s-%d","quantity":2,"unit_amount":900}]}}`, n%1000, c.run, n, stack.SKU, n%c.skus)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.urls[int(n)%len(c.urls)]+"/v1/payments", bytes.NewReader(body.Bytes()))
	if err != nil {
		return a, err
	}
	request.Header.Set("Authorization", "Bearer "+merchant.Key)
	request.Header.Set("Idempotency-Key", c.run+"-"+strconv.FormatInt(n, 10))
	request.Header.Set("Content-Type", "application/json")
	if wait {
		request.Header.Set("Prefer", "wait=30")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return a, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return a, err
	}
	a.Status = answer.StatusCode
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil {
		a.RetryAfter = time.Duration(seconds) * time.Second
	}
	switch {
	case a.Accepted():
		a.ID = path.Base(answer.Header.Get("Location"))
		a.Succeeded = bytes.Contains(content, []byte(`"status":"succeeded"`))
		if a.ID == "." {
			return a, fmt.Errorf("a payment was answered %d without a Location: %s", a.Status, content)
		}
	case !a.Shed():
		return a, fmt.Errorf("a payment was answered %d: %s", a.Status, content)
	}
	return a, nil
}

// Get reads a path as merchant m.
func (c *Client) Get(ctx context.Context, m int, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.urls[0]+path, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.merchants[m].Key)
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s was answered %d: %s", path, answer.StatusCode, content)
	}
	return err
}
