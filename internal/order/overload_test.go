package order_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"payments/internal/order"
	"payments/internal/provider"
)

// strained is a bank that takes 0.5 ms times the square of the requests that it has
// in hand, those counted whose client has gone: 17 at once are answered within the
// client's 150 ms, 32 at once in none.
type strained struct {
	next             http.Handler
	inHand, requests atomic.Int64
}

func (s *strained) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	n := s.inHand.Add(1)
	defer s.inHand.Add(-1)
	<-time.After(time.Duration(n*n) * 500 * time.Microsecond)
	s.next.ServeHTTP(w, r)
}

// A backlog that comes upon a bank which collapses under as many calls as the worker
// has slots is drained with little more calls than it needs: too many at once are
// cut off, and each is then to be looked up, by which no call would be answered ever.
func TestABacklogDrainsThroughABankThatSlowsWithItsLoad(t *testing.T) {
	const backlog, needed = 300, 2
	w := newWorld(t)
	base, err := url.Parse(w.bank)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(base)
	forward.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // it tells of every client that went away
	bank := &strained{next: forward}
	server := httptest.NewServer(bank)
	t.Cleanup(server.Close)
	slow, err := provider.NewHTTP(server.URL, provider.HTTPConfig{Timeout: 150 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(slow.Close)
	w.config.Provider = slow
	w.orders = order.New(w.config)
	w.exec(`UPDATE stock SET on_hand = 1000, received = 1000 + reserved + sold`)
	for range backlog {
		w.placed("pm_card_visa", "")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	worker, began := w.worker(), time.Now()
	left := func() int { return w.count(`SELECT count(*) FROM sagas WHERE due_at IS NOT NULL`) }
	for left() > 0 {
		again, err := worker.RunOnce(ctx)
		if err != nil {
			t.Fatalf("%d of %d left after %v and %d requests: %v", left(), backlog, time.Since(began), bank.requests.Load(), err)
		}
		if !again {
			select {
			case <-worker.Woken():
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	worker.Drain()
	t.Logf("a backlog of %d drained in %v with %d requests", backlog, time.Since(began).Round(time.Millisecond), bank.requests.Load())
	if most := int64(2 * needed * backlog); bank.requests.Load() > most {
		t.Errorf("%d requests for %d payments, more than %d", bank.requests.Load(), backlog, most)
	}
	w.audited()
}
