package test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"payments/client"
)

// ends of the simulator's payment methods: the status, and for a failed payment
// its code and step.
var ends = map[string][3]string{
	"pm_card_visa":               {"succeeded"},
	"pm_card_declined":           {"failed", "card_declined", "authorize_payment"},
	"pm_card_insufficient_funds": {"failed", "insufficient_funds", "authorize_payment"},
	"pm_card_capture_declined":   {"failed", "capture_declined", "capture_payment"},
	"pm_card_timeout_applied":    {"succeeded"},
	"pm_card_timeout_lost":       {"succeeded"},
	"pm_card_late_applied":       {"succeeded"},
	"pm_card_flaky":              {"succeeded"},
	"pm_card_slow":               {"succeeded"},
}

const (
	clients = 8
	// pace of one client; all of them stay well below what a raced build does on two busy
	// cores, since a fault is looked for here and not the capacity.
	pace = 250 * time.Millisecond
	// answeredWithin bounds a client's retries under one key, an outage included.
	answeredWithin = 3 * time.Minute
)

// load is clients that post payments, each again under the same key until it is
// accepted, as a merchant's would.
type load struct {
	w        *world
	services []*service
	stop     context.CancelFunc
	wg       sync.WaitGroup

	mu       sync.Mutex
	accepted []acceptance
	retries  map[string]int // by what was answered, for the log
}

type acceptance struct{ id, key, method string }

// load begins at once. Each client has a random source of its own, so that what
// it asks for does not depend on the others.
func (w *world) load(rng *rand.Rand, services ...*service) *load {
	ctx, stop := context.WithCancel(w.t.Context())
	l := &load{w: w, services: services, stop: stop, retries: map[string]int{}}
	methods := slices.Sorted(maps.Keys(ends))
	for c := range clients {
		own := rand.New(rand.NewPCG(rng.Uint64(), 0))
		merchant := l.merchant(own)
		l.wg.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				l.pay(merchant, own, fmt.Sprintf("load-%d-%d", c, n), methods[own.IntN(len(methods))])
			}
		})
	}
	w.t.Cleanup(l.end)
	return l
}

// merchant turns to one of the services at each try, and tries as long as its context lets it.
func (l *load) merchant(rng *rand.Rand) *client.Client {
	balanced := &http.Client{Timeout: l.w.http.Timeout, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.Host = strings.TrimPrefix(l.services[rng.IntN(len(l.services))].url, "http://")
		return l.w.http.Transport.RoundTrip(r)
	})}
	return l.w.api(l.services[0], l.w.vars["PAYMENTS_API_KEY"],
		client.WithHTTPClient(balanced), client.WithTries(0), client.WithBackoff(3*pace, 3*pace), client.WithRetryFunc(l.retried))
}

// end lets every request that was begun be answered.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// pay posts until it is accepted, and sometimes once more after that.
func (l *load) pay(merchant *client.Client, rng *rand.Rand, key, method string) {
	ctx, cancel := context.WithTimeout(l.w.t.Context(), answeredWithin)
	defer cancel()
	params := client.CreatePaymentParams{IdempotencyKey: key}
	first, err := merchant.CreatePayment(ctx, order("O-"+key, method), &params)
	if err != nil {
		l.w.t.Errorf("key %s was not accepted within %s: %v", key, answeredWithin, err)
		return
	}
	l.mu.Lock()
	l.accepted = append(l.accepted, acceptance{first.Value.ID, key, method})
	l.mu.Unlock()
	if rng.IntN(4) > 0 {
		return
	}
	again, err := merchant.CreatePayment(ctx, order("O-"+key, method), &params)
	if err != nil {
		l.w.t.Errorf("key %s was not answered again: %v", key, err)
		return
	}
	if diff := cmp.Diff(first.Value, again.Value); diff != "" || !again.Replayed() {
		l.w.t.Errorf("key %s was answered %v again, replayed: %v, with another payment: %s", key, again.Status, again.Replayed(), diff)
	}
}

// retried counts what the client repeats. Faults may leave a call without an answer
// or have it refused for now; anything else that the client would bear is a failure.
func (l *load) retried(r client.Retry) {
	why := "no answer"
	if p, refused := errors.AsType[*client.ProblemError](r.Err); refused {
		why = string(p.Code)
		if p.Code != client.ProblemCodeServiceUnavailable && p.Code != client.ProblemCodeOverloaded && p.Code != client.ProblemCodeIdempotencyKeyInUse {
			l.w.t.Errorf("a payment was answered %v", p)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retries[why]++
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// fewer is "" once n payments are accepted.
func (l *load) fewer(n int) (missing string) {
	if have := l.count(); have < n {
		return fmt.Sprintf("only %d payments are accepted", have)
	}
	return ""
}

// verify ends the load, waits until all is settled, and holds every accepted
// payment against what its method has to end in; then the audit holds everything
// against everything.
func (l *load) verify() {
	t := l.w.t
	t.Helper()
	l.end()
	l.w.audited()
	t.Logf("%d payments were accepted, after repetitions because of %v", len(l.accepted), l.retries)
	if len(l.accepted) == 0 {
		t.Error("nothing was accepted: there was no load")
	}
	if n := l.w.count(`SELECT count(*) FROM payments`); n != int64(len(l.accepted)) {
		t.Errorf("%d payments were accepted and %d exist", len(l.accepted), n)
	}
	for _, a := range l.accepted {
		p := l.w.payment(l.services[0], a.id)
		got := [3]string{string(p.Status)}
		if p.Failure != nil {
			got[1], got[2] = p.Failure.Code, p.Failure.Step
		}
		if p.PaymentMethod != a.method || p.Customer.Email != "ada@example.com" {
			t.Errorf("%s was paid with %s and has %s, of %q", a.id, a.method, p.PaymentMethod, p.Customer.Email)
		}
		if got != ends[a.method] {
			t.Errorf("%s of key %s with %s ended in %v", a.id, a.key, a.method, got)
			l.w.explain(a.id)
		}
	}
}

// explain shows what the saga of a payment did.
func (w *world) explain(paymentID string) {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `
		SELECT concat_ws(' ', a.number, a.step, a.call, a.outcome, a.code, a.started_at, a.detail)
		FROM saga_attempts a JOIN sagas s ON s.merchant_id = a.merchant_id AND s.id = a.saga_id
		WHERE s.data->>'payment_id' = $1 ORDER BY a.number`, paymentID)
	if err == nil {
		var attempts []string
		if attempts, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
			for _, a := range attempts {
				w.t.Log(a)
			}
		}
	}
	if err != nil {
		w.t.Log(err)
	}
	w.t.Logf("the bank's ledger: %v", w.ledger(paymentID))
}
