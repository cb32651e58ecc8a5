package load

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Hostile is a caller that asks for as much as it can, and does not wait as long as Retry-After says.
type Hostile struct {
	Clients int
	// Request makes the nth request.
	Request func(ctx context.Context, n int64) (*http.Request, error)

	Answered atomic.Int64 // with 2xx or 4xx
	Refused  atomic.Int64 // with 429 or 503

	next atomic.Int64
}

// impatience is what a hostile client waits after a refusal, a tenth of what it is asked to wait.
const impatience = 100 * time.Millisecond

// Run until ctx ends. An answer that has no end is read until then.
func (h *Hostile) Run(ctx context.Context) error {
	transport := &http.Transport{MaxIdleConns: h.Clients, MaxIdleConnsPerHost: h.Clients, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var wg sync.WaitGroup
	failed := make(chan error, h.Clients)
	for range h.Clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := h.once(ctx, client); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	var err error
	for e := range failed {
		err = errors.Join(err, e)
	}
	return err
}

func (h *Hostile) once(ctx context.Context, client *http.Client) error {
	request, err := h.Request(ctx, h.next.Add(1))
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Refused.Add(1)
		pause(ctx, impatience)
	default:
		h.Answered.Add(1)
	}
	_, _ = io.Copy(io.Discard, answer.Body) // one that is cut off is asked for again
	return nil
}
