package order_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

// forgetting honors a key for a time, as Stripe does: what is sent under it later is a new
// operation. A lookup finds all of them.
type forgetting struct {
	provider.Provider
	after time.Duration
	mu    sync.Mutex
	first map[string]time.Time
	uses  map[string]int
	again int // requests that were sent under a key that was forgotten
}

func (f *forgetting) Execute(ctx context.Context, op provider.Operation) provider.Result {
	f.mu.Lock()
	if f.first[op.Key].IsZero() {
		f.first[op.Key] = time.Now()
	} else if time.Since(f.first[op.Key]) > f.after {
		f.first[op.Key] = time.Now()
		f.uses[op.Key]++
		f.again++
	}
	n := f.uses[op.Key]
	f.mu.Unlock()
	if n > 0 {
		op.Key += fmt.Sprint("~", n)
	}
	return f.Provider.Execute(ctx, op)
}

func (f *forgetting) Lookup(ctx context.Context, op provider.Operation) provider.Result {
	f.mu.Lock()
	n := f.uses[op.Key]
	f.mu.Unlock()
	key := op.Key
	r := f.Provider.Lookup(ctx, op)
	for i := 1; i <= n && r.Outcome == provider.NotFound; i++ {
		op.Key = key + fmt.Sprint("~", i)
		r = f.Provider.Lookup(ctx, op)
	}
	return r
}

// Several workers die, connections are cut, the bank has every fault, merchants cancel, capture
// and refund at any instant, and operators pause, resume, retry, resolve and cancel. What was
// answered is compared with what came of it. STORM_SEED repeats a run's choices, STORM_SECONDS is its
// length, and with STORM_FORGETS the bank forgets idempotency keys.
func TestAStormOfFaultsAndActs(t *testing.T) {
	seed := uint64(1)
	if s := os.Getenv("STORM_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("STORM_SEED: %v", err)
		}
	}
	seconds := 2
	if s := os.Getenv("STORM_SECONDS"); s != "" {
		var err error
		if seconds, err = strconv.Atoi(s); err != nil {
			t.Fatalf("STORM_SECONDS: %v", err)
		}
	}
	rng := mrand.New(mrand.NewPCG(seed, 7))
	var mu sync.Mutex
	roll := func(n int) int { mu.Lock(); defer mu.Unlock(); return rng.IntN(n) }
	w := newWorld(t)
	w.exec(`UPDATE stock SET on_hand = 100000, received = 100000`)
	if os.Getenv("STORM_FORGETS") != "" {
		w.policy.KeyLifetime = 1200 * time.Millisecond
		w.config.Provider = &forgetting{Provider: w.config.Provider, after: 2 * time.Second, first: map[string]time.Time{}, uses: map[string]int{}}
		w.orders = order.New(w.config)
	}
	methods := []string{"pm_card_visa", "pm_card_visa", "pm_card_visa", "pm_card_declined", "pm_card_insufficient_funds", "pm_card_capture_declined",
		"pm_card_timeout_applied", "pm_card_timeout_lost", "pm_card_late_applied", "pm_card_flaky", "pm_card_slow"}
	kinds := []string{"outage", "error", "timeout_applied", "timeout_lost", "late_applied", "slow"}
	ops := []string{"authorization", "capture", "void", "refund", "lookup", "*"}

	type told struct {
		canceled, captured bool
		refunds            int64
		wrong              []string
	}
	var tmu sync.Mutex
	tolds := map[string]*told{}
	var ids []string
	pick := func() string {
		tmu.Lock()
		defer tmu.Unlock()
		if len(ids) == 0 {
			return ""
		}
		return ids[roll(len(ids))]
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	// merchants
	for range 3 {
		all.Go(func() {
			for time.Now().Before(end) {
				switch n := roll(10); {
				case n < 4:
					capture := payment.CaptureAutomatic
					if roll(2) == 0 {
						capture = payment.CaptureManual
					}
					id, err := w.place(draft{methods[roll(len(methods))], "A-" + rand.Text()[:10], int64(1 + roll(3)), capture, nil})
					if err == nil {
						tmu.Lock()
						ids = append(ids, id)
						tolds[id] = &told{}
						tmu.Unlock()
					}
				case n < 6:
					if id := pick(); id != "" {
						if _, err := w.orders.Cancel(ctx, w.merchant, id); err == nil {
							tmu.Lock()
							tolds[id].canceled = true
							tmu.Unlock()
						}
					}
				case n < 8:
					if id := pick(); id != "" {
						_, err := w.orders.Capture(ctx, w.merchant, id)
						var e *payment.Error
						tmu.Lock()
						if err == nil {
							tolds[id].captured = true
						} else if errors.As(err, &e) && strings.Contains(e.Message, "being canceled") && !tolds[id].canceled {
							tolds[id].wrong = append(tolds[id].wrong, e.Message)
						}
						tmu.Unlock()
					}
				default:
					if id := pick(); id != "" {
						amount := int64(1 + roll(2499))
						if _, err := w.refund(ctx, id, &amount); err == nil {
							tmu.Lock()
							tolds[id].refunds += amount
							tmu.Unlock()
						}
					}
				}
				pace(time.Duration(5+roll(25)) * time.Millisecond)
			}
		})
	}
	// the bank
	all.Go(func() {
		for time.Now().Before(end) {
			w.fault(fmt.Sprintf(`{"kind": %q, "operation": %q, "rate": %.2f, "latency_ms": %d, "seconds": 1}`, kinds[roll(len(kinds))], ops[roll(len(ops))], 0.1+float64(roll(6))/10, 100+roll(900)))
			pace(time.Duration(100+roll(300)) * time.Millisecond)
			if roll(4) == 0 {
				w.heal()
			}
		}
		w.heal()
	})
	// operators
	all.Go(func() {
		acts := []string{"retry", "resolve", "pause", "resume", "cancel", "retry", "resume"}
		for time.Now().Before(end) {
			var id string
			_ = w.pool.QueryRow(ctx, `SELECT id FROM sagas WHERE definition <> 'orphan_void' ORDER BY random() LIMIT 1`).Scan(&id)
			if id != "" {
				act := acts[roll(len(acts))]
				err := w.orders.Operations().Act(ctx, ada, id, act, order.Verdict{})
				if err == nil && act == "cancel" {
					var pid string
					_ = w.pool.QueryRow(ctx, `SELECT p.id FROM payments p JOIN sagas s ON s.subject = p.order_id WHERE s.id = $1`, id).Scan(&pid)
					tmu.Lock()
					if tolds[pid] != nil {
						tolds[pid].canceled = true
					}
					tmu.Unlock()
				}
			}
			pace(time.Duration(20+roll(60)) * time.Millisecond)
		}
	})
	// cut connections
	all.Go(func() {
		for time.Now().Before(end) {
			pace(time.Duration(150+roll(400)) * time.Millisecond)
			_, _ = w.pool.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2`)
		}
	})
	// workers that die
	var deaths atomic.Int64
	for n := range 2 {
		all.Go(func() {
			for time.Now().Before(end) {
				worker, err := saga.NewWorker(w.pool, saga.Config{
					Definitions: w.orders.Sagas(), Owner: fmt.Sprint(n, rand.Text()), CallTimeout: 250 * time.Millisecond,
					Lease: 2300 * time.Millisecond, Concurrency: 16, Open: w.orders.Open, Now: time.Now, Log: slog.New(slog.DiscardHandler),
					Registerer: prometheus.NewRegistry(), Policy: w.policy,
					Crash: func(string, string) bool {
						if roll(250) == 0 {
							deaths.Add(1)
							return true
						}
						return false
					},
				})
				if err != nil {
					t.Error(err)
					return
				}
				for life := time.Now().Add(time.Duration(500+roll(1500)) * time.Millisecond); time.Now().Before(life) && time.Now().Before(end); {
					_, _ = worker.RunOnce(ctx)
					w.hand.Store(worker)
					pace(5 * time.Millisecond)
				}
				worker.Drain()
			}
		})
	}
	all.Wait()
	w.pool.Reset() // the connections that were cut
	w.heal()
	w.exec(`UPDATE sagas SET paused_at = NULL`)
	w.settle()
	// parked ones: tell the truth after looking it up again, twice
	for range 3 {
		for _, id := range one[[]string](w, `SELECT coalesce(array_agg(id), '{}') FROM sagas WHERE state = 'parked'`) {
			_ = w.orders.Operations().Act(t.Context(), ada, id, "retry", order.Verdict{})
		}
		w.settle()
	}
	// What the bank carries out late, it does within three seconds; then the searches find it.
	late := time.Now().Add(4 * time.Second)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(late) || held(w, ids) != "" && time.Now().Before(deadline); {
		w.exec(`UPDATE sagas SET due_at = now() WHERE definition = 'orphan_void' AND due_at IS NOT NULL AND owner IS NULL`)
		worker := w.worker()
		_, _ = worker.RunOnce(t.Context())
		worker.Drain()
		pace(100 * time.Millisecond)
	}
	counts := one[string](w, `SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) n FROM payments GROUP BY 1) x`)
	sagas := one[string](w, `SELECT string_agg(definition || ' ' || state || ' ' || n, ', ' ORDER BY definition, state) FROM (SELECT definition, state, count(*) n FROM sagas GROUP BY 1, 2) x`)
	t.Logf("seed %d: %d deaths, %s; %s; %d attempts", seed, deaths.Load(), counts, sagas, w.count(`SELECT count(*) FROM saga_attempts`))
	w.audited()
	wrong := 0
	for id, s := range tolds {
		status := w.status(id)
		if s.canceled && status == "succeeded" {
			t.Errorf("%s was canceled (accepted) and is %s: %v %v", id, status, w.events(id), w.ledger(id))
		}
		wrong += len(s.wrong)
	}
	if left := held(w, ids); left != "" {
		t.Errorf("a hold that no search has found: %s", left)
	}
	if f, ok := w.config.Provider.(*forgetting); ok {
		t.Logf("%d requests were sent under a key that was forgotten", f.again)
		for id := range tolds {
			a := 0
			for _, o := range w.ledger(id) {
				if o == "authorization:succeeded" {
					a++
				}
			}
			if a > 1 {
				t.Errorf("%s was authorized %d times: %v", id, a, w.ledger(id))
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d captures were told 'being canceled' wrongly", wrong)
	}
}

// held is an ended payment whose hold the bank still has, or "".
func held(w *world, ids []string) string {
	for _, id := range ids {
		holds, voids := 0, 0
		for _, o := range w.ledger(id) {
			switch o {
			case "authorization:succeeded":
				holds++
			case "void:succeeded":
				voids++
			}
		}
		if st := w.status(id); (st == "failed" || st == "canceled") && holds > voids {
			return fmt.Sprintf("%s is %s and held: %v, events %v, searches %s", id, st, w.ledger(id), w.events(id),
				one[string](w, `SELECT coalesce(string_agg(state || ' ' || step, ','), 'none') FROM sagas WHERE definition = 'orphan_void' AND subject LIKE $1 || '%'`, id))
		}
	}
	return ""
}

// pace is the time that an actor of the storm takes between two acts.
func pace(d time.Duration) { <-time.After(d) }
