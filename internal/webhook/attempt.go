package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Outcome of an attempt.
type Outcome string

// Only a status of 2xx has succeeded.
const (
	OutcomeSucceeded   Outcome = "succeeded"
	OutcomeRefused     Outcome = "refused" // another status
	OutcomeGone        Outcome = "gone"    // 410: disables the endpoint
	OutcomeTimeout     Outcome = "timeout"
	OutcomeUnreachable Outcome = "unreachable"
	OutcomeBlocked     Outcome = "blocked" // by the Guard
)

// maxAnswer is what is read of an answer, so that its connection can be used
// again, and thrown away: it may hold anything, and showing it would make us a
// proxy to whatever the endpoint names.
const maxAnswer = 16 << 10

// newClient dials checked addresses only, by no proxy, and follows no redirect:
// either would lead past the Guard.
func newClient(c Config) *http.Client {
	dialer := &net.Dialer{Timeout: attemptTimeout, Control: c.Guard.control, Resolver: c.Resolver}
	t := &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: attemptTimeout, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: perEndpoint, MaxIdleConns: 256, IdleConnTimeout: 30 * time.Second,
		MaxResponseHeaderBytes: maxAnswer, DisableCompression: true,
	}
	if c.Transport != nil {
		c.Transport(t)
	}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// attempt posts the delivery once. Its error is a fault of ours; what goes wrong
// on the way is its outcome.
func (d *Dispatcher) attempt(ctx context.Context, c claimed, secrets []string) (Attempt, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(c.body))
	if err != nil {
		return Attempt{}, fmt.Errorf("make request: %w", err)
	}
	began := d.Now()
	if err := sign(r.Header, c.id, began, c.body, secrets); err != nil {
		return Attempt{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "payments-webhooks/1")
	a := Attempt{StartedAt: began.UTC()}
	resp, err := d.client.Do(r)
	if err != nil {
		a.Outcome, a.Detail = failure(err)
	} else {
		// The status says all. Behind 101 the connection is another protocol's, and the end
		// of ctx would not end the reading.
		if resp.StatusCode >= http.StatusOK {
			_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
		}
		_ = resp.Body.Close()
		a.Outcome, a.Detail = verdict(resp.StatusCode)
		if resp.StatusCode >= http.StatusContinue { // 0 to 99 are none, though net/http takes them
			a.Status = resp.StatusCode
		}
	}
	a.Duration = d.Now().Sub(began)
	return a, nil
}

func verdict(status int) (Outcome, string) {
	switch {
	case status >= 200 && status < 300:
		return OutcomeSucceeded, "The endpoint took it."
	case status == http.StatusGone:
		return OutcomeGone, "The endpoint answered 410: it is gone, and disabled from now on."
	case status >= 300 && status < 400:
		return OutcomeRefused, "The endpoint answered with a redirect, which is not followed."
	}
	return OutcomeRefused, "The endpoint answered with a status that is not 2xx."
}

// failure's sentences are fixed: an error's own text can hold addresses of our network.
func failure(err error) (Outcome, string) {
	var network net.Error
	switch {
	case errors.Is(err, errBlocked):
		return OutcomeBlocked, "The endpoint's name leads to an address that is private, local or reserved."
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout():
		return OutcomeTimeout, "The endpoint did not answer in time."
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return OutcomeUnreachable, "The endpoint's name does not resolve."
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return OutcomeUnreachable, "The endpoint's certificate is not valid."
	}
	return OutcomeUnreachable, "The endpoint could not be reached, or hung up."
}
