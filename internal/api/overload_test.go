package api

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// bounded serves the world again with at most so many unfinished payments, and a clock
// that the test moves.
func (w *world) bounded(most int) (*Admission, *time.Time) {
	w.t.Helper()
	now := time.Now()
	w.registry = prometheus.NewRegistry()
	a, err := NewAdmission(AdmissionConfig{
		Count: w.orders.Unfinished(w.pool).Count, Most: most, Oldest: 10 * time.Second, Now: func() time.Time { return now }, Registerer: w.registry,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.api.Admission, w.api.Registerer = a, w.registry
	w.server = w.serve(w.api)
	w.count(a)
	return a, &now
}

func (w *world) count(a *Admission) {
	w.t.Helper()
	if _, err := a.RunOnce(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(sql string) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pay(n int) answer {
	w.t.Helper()
	return w.post(w.merchant, strings.ReplaceAll(good, "A-1001", fmt.Sprint("A-", n)), key(fmt.Sprint("k-", n))...)
}

// A service over its bound refuses before it sends a statement, and wrote nothing. What it
// accepted before is answered. It accepts again when a payment has finished.
func TestBeyondItsBoundAPaymentIsRefusedBeforeAnyStatement(t *testing.T) {
	w := newWorld(t)
	a, now := w.bounded(2)
	first := w.pay(1)
	for n, got := range []answer{first, w.pay(2)} {
		if got.status != http.StatusAccepted {
			t.Fatalf("payment %d: %d %s", n, got.status, got.body)
		}
	}
	refused := func(what string) {
		t.Helper()
		rows, statements := w.rows(), w.pool.Stat().AcquireCount()
		got := w.pay(3)
		if used := w.pool.Stat().AcquireCount() - statements; used != 0 {
			t.Errorf("%s: %d connections were used", what, used)
		}
		w.refused(what, got, http.StatusServiceUnavailable, codeOverloaded)
		if got.header.Get("Retry-After") != "1" {
			t.Errorf("%s: Retry-After %q", what, got.header.Get("Retry-After"))
		}
		if n := w.rows(); n != rows {
			t.Errorf("%s: %d rows, and %d before", what, n, rows)
		}
	}
	refused("by what was accepted since the last count")
	w.exec(`UPDATE sagas SET owner = 'w', epoch = 1, due_at = now() + interval '7 seconds' WHERE subject IN (SELECT id FROM orders WHERE reference = 'A-1')`)
	*now = now.Add(time.Minute)
	w.count(a)
	refused("by the count of what is due and in hand")
	if again := w.pay(1); again.status != first.status || again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a repetition was answered %d %s", again.status, again.body)
	}
	if got := w.do("GET", "/v1/payments", w.merchant, ""); got.status != http.StatusOK {
		t.Errorf("a read was answered %d", got.status)
	}
	w.exec(`UPDATE sagas SET state = 'completed', due_at = NULL, owner = NULL WHERE owner = 'w'`)
	w.count(a)
	if got := w.pay(3); got.status != http.StatusAccepted {
		t.Errorf("after a payment finished: %d %s", got.status, got.body)
	}
	if err := testutil.GatherAndCompare(w.registry, strings.NewReader(`
		# HELP payments_http_overloaded_total Payments refused with 503 overloaded, by the bound that was reached: unfinished or oldest.
		# TYPE payments_http_overloaded_total counter
		payments_http_overloaded_total{bound="unfinished"} 2
	`), "payments_http_overloaded_total"); err != nil {
		t.Error(err)
	}
}

// However many ask at once, no more are accepted than the bound lets in.
func TestABurstIsAcceptedUpToTheBound(t *testing.T) {
	const most, burst = 5, 40
	w := newWorld(t)
	w.bounded(most)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for n := range burst {
		wg.Go(func() {
			a := w.pay(n)
			mu.Lock()
			defer mu.Unlock()
			got[a.status]++
		})
	}
	wg.Wait()
	if got[http.StatusAccepted] != most || got[http.StatusServiceUnavailable] != burst-most {
		t.Errorf("answered %v", got)
	}
}

// A payment that nobody begins for too long is a reason to refuse others; one that waits for
// a time, as after a call without an answer, is none.
func TestAPaymentThatNobodyBeginsRefusesOthers(t *testing.T) {
	w := newWorld(t)
	if got := w.pay(1000); got.status != http.StatusAccepted {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for n, c := range []struct {
		what, set string
		status    int
	}{
		{"it waits for a worker", `begun = false, due_at = t, claim_at = t`, http.StatusServiceUnavailable},
		{"a worker has it", `owner = 'w', due_at = now() + interval '5 seconds', claim_at = t`, http.StatusAccepted},
		{"it has begun and is due again", `owner = NULL, attempts = 1, begun = true, due_at = t, claim_at = t`, http.StatusAccepted},
		{"it waits for a time", `due_at = now() + interval '1 hour'`, http.StatusAccepted},
		{"it is paused", `attempts = 0, paused_at = now(), due_at = t`, http.StatusAccepted},
	} {
		w.exec(`UPDATE sagas SET ` + c.set + ` FROM (SELECT now() - interval '11 seconds' AS t) old WHERE state = 'running'`)
		_, now := w.bounded(100)
		if got := w.pay(n); got.status != c.status {
			t.Errorf("%s: %d %s", c.what, got.status, got.body)
		}
		if *now = now.Add(unfinishedStale + time.Second); c.status != http.StatusAccepted {
			if got := w.pay(n); got.status != http.StatusAccepted {
				t.Errorf("%s, but the count is old: %d %s", c.what, got.status, got.body)
			}
		}
		w.exec(`UPDATE sagas SET state = 'completed', due_at = NULL, owner = NULL WHERE subject <> (SELECT min(subject) FROM sagas)`)
	}
}
