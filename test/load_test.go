package test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
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
		l.wg.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				l.pay(own, fmt.Sprintf("load-%d-%d", c, n), methods[own.IntN(len(methods))])
			}
		})
	}
	w.t.Cleanup(l.end)
	return l
}

// end lets every request that was begun be answered.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// pay posts until it is accepted, and sometimes once more after that.
func (l *load) pay(rng *rand.Rand, key, method string) {
	ctx, cancel := context.WithTimeout(l.w.t.Context(), answeredWithin)
	defer cancel()
	body := order("O-"+key, method)
	first := l.accept(ctx, rng, key, body)
	if first == nil {
		return
	}
	l.mu.Lock()
	l.accepted = append(l.accepted, acceptance{decode[payment](l.w.t, *first).ID, key, method})
	l.mu.Unlock()
	if rng.IntN(4) == 0 {
		again := l.accept(ctx, rng, key, body)
		if again != nil && (!bytes.Equal(again.body, first.body) || again.header.Get("Idempotent-Replayed") != "true") {
			l.w.t.Errorf("key %s was answered %s and then, Idempotent-Replayed: %q, %s", key, first.body,
				again.header.Get("Idempotent-Replayed"), again.body)
		}
	}
}

// accept repeats the request while nobody answers or the answer is to do so.
func (l *load) accept(ctx context.Context, rng *rand.Rand, key, body string) *answer {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			l.w.t.Errorf("key %s was not accepted within %s", key, answeredWithin)
			return nil
		case <-pause.C:
		}
		s := l.services[rng.IntN(len(l.services))]
		a, err := l.w.send(ctx, http.MethodPost, s.url+"/v1/payments", l.w.vars["PAYMENTS_API_KEY"], body,
			map[string]string{"Idempotency-Key": key})
		switch {
		case err != nil:
			l.retried("no answer")
		case a.status == http.StatusAccepted:
			return &a
		case a.status == http.StatusServiceUnavailable || a.status == http.StatusConflict && decode[problem](l.w.t, a).Code == "idempotency_key_in_use":
			l.retried(http.StatusText(a.status))
		default:
			l.w.t.Errorf("key %s was answered %d %s", key, a.status, a.body)
			return nil
		}
		pause.Reset(pace + time.Duration(rng.Int64N(int64(2*pace))))
	}
}

func (l *load) retried(why string) {
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
		p := read[payment](l.w, l.services[0].url+"/v1/payments/"+a.id)
		got := [3]string{p.Status}
		if p.Failure != nil {
			got[1], got[2] = p.Failure.Code, p.Failure.Step
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
