package saga_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
	"payments/internal/saga"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

// bank is the other system: it knows a key once it was executed.
type bank struct {
	executed atomic.Int64
	keys     []string
	during   func() // runs while a request is under way
	answer   saga.Outcome
}

func (b *bank) definition() saga.Definition {
	hook := func(context.Context, saga.Unit, *saga.Instance) error { return nil }
	return saga.Definition{
		Name: "test", Version: 1, Completed: hook, Compensated: hook,
		Parked: func(context.Context, saga.Unit, *saga.Instance, saga.Rejection) error { return nil },
		Steps: []saga.Step{{Kind: saga.Pivot, Do: saga.Action{Name: "pay", Call: &saga.Call{
			Execute: func(_ context.Context, r saga.Request) saga.Outcome {
				b.executed.Add(1)
				b.keys = append(b.keys, r.Key)
				if b.during != nil {
					b.during()
				}
				return b.answer
			},
			Lookup: func(context.Context, saga.Request) saga.Outcome {
				if b.executed.Load() == 0 {
					return saga.Outcome{Verdict: saga.NotFound}
				}
				return saga.Outcome{Verdict: saga.Succeeded, Reference: "op_1"}
			},
			Record: func(_ context.Context, _ saga.Unit, i *saga.Instance, o saga.Outcome) error {
				i.Data = json.RawMessage(`{"operation": "` + o.Reference + `"}`)
				return nil
			},
		}}}},
	}
}

func open(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func begin(t *testing.T, pool *pgxpool.Pool, d saga.Definition) {
	t.Helper()
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		return d.Begin(t.Context(), tx, saga.Begin{MerchantID: "mer_1", ID: "sag_1", Subject: "ord_1", Data: json.RawMessage(`{}`)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func worker(t *testing.T, pool *pgxpool.Pool, owner string, d saga.Definition, changes ...func(*saga.Config)) *saga.Worker {
	t.Helper()
	c := saga.Config{
		Definitions: []saga.Definition{d}, Owner: owner, CallTimeout: time.Second, Lease: 5 * time.Second, Concurrency: 2,
		Now: time.Now, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Policy: quick(),
	}
	for _, change := range changes {
		change(&c)
	}
	w, err := saga.NewWorker(pool, c)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func quick() saga.Policy {
	pause := func(int) time.Duration { return time.Millisecond }
	return saga.Policy{KeyLifetime: time.Hour, Backoff: pause, UndoBackoff: pause, Shut: func() time.Duration { return time.Millisecond }}
}

type row struct {
	State    string
	Epoch    int64
	Owner    *string
	Attempts int
	Data     string
}

func read(t *testing.T, pool *pgxpool.Pool) (r row) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `SELECT state, epoch, owner, attempts, data::text FROM sagas`).
		Scan(&r.State, &r.Epoch, &r.Owner, &r.Attempts, &r.Data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func turn(t *testing.T, w *saga.Worker) {
	t.Helper()
	if _, err := w.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Drain()
}

func TestAPausedWorkerIsFencedAndItsSagaFinishedOnceByAnother(t *testing.T) {
	pool := open(t)
	b := &bank{answer: saga.Outcome{Verdict: saga.Succeeded, Reference: "op_late"}}
	begin(t, pool, b.definition())
	// While the first worker's request is under way its lease ends, and another
	// finds the intent, looks the operation up and completes the saga.
	b.during = func() {
		if _, err := pool.Exec(t.Context(), `UPDATE sagas SET due_at = now() WHERE state = 'running'`); err != nil {
			t.Error(err)
		}
		turn(t, worker(t, pool, "second", b.definition()))
		if r := read(t, pool); r.State != "completed" || r.Epoch != 2 {
			t.Errorf("the second worker left %+v", r)
		}
	}
	turn(t, worker(t, pool, "first", b.definition()))
	if r := read(t, pool); r.State != "completed" || r.Data != `{"operation": "op_1"}` {
		t.Fatalf("the first worker wrote over it: %+v", r)
	}
	if n := b.executed.Load(); n != 1 {
		t.Fatalf("executed %d times", n)
	}
}

func TestTheIntentIsCommittedBeforeTheCall(t *testing.T) {
	pool := open(t)
	b := &bank{answer: saga.Outcome{Verdict: saga.Succeeded}}
	b.during = func() {
		var open int
		err := pool.QueryRow(t.Context(), `
			SELECT count(*) FROM saga_attempts a JOIN sagas s ON s.id = a.saga_id
			WHERE s.intent AND a.outcome IS NULL AND a.idempotency_key = 'sag_1:pay'`).Scan(&open)
		if err != nil || open != 1 {
			t.Errorf("%d open intents during the call (%v)", open, err)
		}
	}
	begin(t, pool, b.definition())
	turn(t, worker(t, pool, "w", b.definition()))
	if r := read(t, pool); r.State != "completed" {
		t.Fatalf("%+v", r)
	}
}

func TestAnUnansweredRequestIsSentAgainUnderTheSameKeyOnlyAfterALookup(t *testing.T) {
	pool := open(t)
	b := &bank{answer: saga.Outcome{Verdict: saga.Unknown, Code: "timeout"}}
	d := b.definition()
	call := d.Steps[0].Do.Call
	lookups := 0
	call.Lookup = func(context.Context, saga.Request) saga.Outcome {
		lookups++
		b.answer = saga.Outcome{Verdict: saga.Succeeded, Reference: "op_2"}
		return saga.Outcome{Verdict: saga.NotFound}
	}
	begin(t, pool, d)
	w := worker(t, pool, "w", d)
	for read(t, pool).State == "running" {
		turn(t, w)
	}
	// More than one where the worker is taken away between a lookup and the request: its answer is old then.
	if lookups == 0 || len(b.keys) != 2 || b.keys[0] != b.keys[1] {
		t.Fatalf("%d lookups, keys %v", lookups, b.keys)
	}
}

// A saga that waited long before its first request, since the other system was
// away, has all of the key's lifetime from then on.
func TestAKeysLifetimeBeginsWithItsFirstRequest(t *testing.T) {
	pool := open(t)
	b := &bank{answer: saga.Outcome{Verdict: saga.Unknown, Code: "timeout"}}
	d := b.definition()
	d.Steps[0].Do.Call.Lookup = func(context.Context, saga.Request) saga.Outcome {
		b.answer = saga.Outcome{Verdict: saga.Succeeded, Reference: "op_2"}
		return saga.Outcome{Verdict: saga.NotFound}
	}
	begin(t, pool, d)
	if _, err := pool.Exec(t.Context(), `UPDATE sagas SET step_since = now() - interval '2 hours'`); err != nil {
		t.Fatal(err)
	}
	w := worker(t, pool, "w", d)
	for read(t, pool).State == "running" {
		turn(t, w)
	}
	if r := read(t, pool); r.State != "completed" || len(b.keys) != 2 {
		t.Fatalf("%+v, sent %d times", r, len(b.keys))
	}
}

func TestALocalStepThatFailsIsRolledBackAndTriedAgain(t *testing.T) {
	pool := open(t)
	failures := 3
	hook := func(context.Context, saga.Unit, *saga.Instance) error { return nil }
	d := saga.Definition{
		Name: "test", Version: 1, Completed: hook, Compensated: hook,
		Parked: func(context.Context, saga.Unit, *saga.Instance, saga.Rejection) error { return nil },
		Steps: []saga.Step{{Kind: saga.Retriable, Do: saga.Action{Name: "write", Local: &saga.Local{Do: func(ctx context.Context, u saga.Unit, _ *saga.Instance) (saga.Outcome, error) {
			if _, err := u.(saga.Transaction).Exec(ctx, `INSERT INTO merchants (id, name) VALUES ('mer_00000000000000000000000000', 'x')`); err != nil {
				return saga.Outcome{}, err
			}
			if failures--; failures >= 0 {
				return saga.Outcome{}, errors.New("not yet")
			}
			return saga.Outcome{Verdict: saga.Succeeded}, nil
		}}}}},
	}
	begin(t, pool, d)
	w := worker(t, pool, "w", d)
	for read(t, pool).State == "running" {
		turn(t, w)
	}
	if r := read(t, pool); r.State != "completed" || r.Attempts != 1 {
		t.Fatalf("%+v", r)
	}
}

// A step that panics must not take the process, and so every other saga, with it.
func TestALocalStepThatPanicsIsTriedAgain(t *testing.T) {
	pool := open(t)
	panics := 2
	hook := func(context.Context, saga.Unit, *saga.Instance) error { return nil }
	d := saga.Definition{
		Name: "test", Version: 1, Completed: hook, Compensated: hook,
		Parked: func(context.Context, saga.Unit, *saga.Instance, saga.Rejection) error { return nil },
		Steps: []saga.Step{{Kind: saga.Retriable, Do: saga.Action{Name: "write", Local: &saga.Local{Do: func(context.Context, saga.Unit, *saga.Instance) (saga.Outcome, error) {
			if panics--; panics >= 0 {
				panic("not yet")
			}
			return saga.Outcome{Verdict: saga.Succeeded}, nil
		}}}}},
	}
	begin(t, pool, d)
	w := worker(t, pool, "w", d)
	for read(t, pool).State == "running" {
		turn(t, w)
	}
	if r := read(t, pool); r.State != "completed" || r.Attempts != 1 {
		t.Fatalf("%+v", r)
	}
}

// A process that is stopped during a call may send its request when it goes on: the
// horizon counts from there, not from a beginning that is long gone.
func TestTheHorizonOfACallThatRanLateCountsFromItsEnd(t *testing.T) {
	for _, c := range []struct{ took, left time.Duration }{
		{0, 5 * time.Second}, {time.Second, 5 * time.Second}, {4 * time.Second, 8 * time.Second},
	} {
		pool := open(t)
		var ahead time.Duration
		b := &bank{answer: saga.Outcome{Verdict: saga.Unknown, Code: "timeout", InFlight: true}, during: func() { ahead = c.took }}
		begin(t, pool, b.definition())
		turn(t, worker(t, pool, "w", b.definition(), func(config *saga.Config) {
			config.Now, config.Policy.Horizon = func() time.Time { return time.Now().Add(ahead) }, 5*time.Second
		}))
		var left time.Duration
		if err := pool.QueryRow(t.Context(), `
			SELECT in_flight_until - started_at FROM sagas JOIN saga_attempts ON saga_id = id`).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if left.Round(time.Second) != c.left {
			t.Errorf("a call of %v may be in flight for %v after it began, want %v", c.took, left, c.left)
		}
	}
}

func TestAStopGivesTheLeaseBackAtOnce(t *testing.T) {
	pool := open(t)
	ctx, stop := context.WithCancel(t.Context())
	b := &bank{answer: saga.Outcome{Verdict: saga.Unknown, Code: "timeout", InFlight: true}, during: stop}
	begin(t, pool, b.definition())
	w := worker(t, pool, "w", b.definition())
	if _, err := w.RunOnce(ctx); err != nil {
		t.Fatal(err)
	}
	w.Drain()
	if r := read(t, pool); r.Owner != nil || r.State != "running" {
		t.Fatalf("%+v", r)
	}
}

// What a dead worker had sent may still be carried out: until the horizon is over,
// finding nothing proves nothing, and nothing is sent again.
func TestADeadWorkersRequestIsNotSentAgainBeforeTheHorizon(t *testing.T) {
	pool := open(t)
	b := &bank{answer: saga.Outcome{Verdict: saga.Succeeded}}
	d := b.definition()
	lookups := 0
	d.Steps[0].Do.Call.Lookup = func(context.Context, saga.Request) saga.Outcome {
		lookups++
		return saga.Outcome{Verdict: saga.NotFound}
	}
	begin(t, pool, d)
	next := func(crash func(point, step string) bool) *saga.Worker {
		policy := quick()
		policy.Horizon = time.Hour
		w, err := saga.NewWorker(pool, saga.Config{
			Definitions: []saga.Definition{d}, Owner: "w", CallTimeout: time.Second, Lease: 5 * time.Second, Concurrency: 1, Crash: crash,
			Now: time.Now, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Policy: policy,
		})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	turn(t, next(func(point, _ string) bool { return point == "called" }))
	for range 3 {
		if _, err := pool.Exec(t.Context(), `UPDATE sagas SET due_at = now()`); err != nil {
			t.Fatal(err)
		}
		turn(t, next(nil))
	}
	if n := b.executed.Load(); n != 1 || lookups != 3 {
		t.Errorf("executed %d times, looked up %d times", n, lookups)
	}
}
