package saga

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// counted gives the worker a pool of one session, whose pages can be counted: those of
// sagas and its indexes that were read since the last call.
func counted(t *testing.T, w *Worker) (pages func() int) {
	t.Helper()
	config := w.pool.Config()
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.pool = pool
	before := 0
	return func() int {
		t.Helper()
		if _, err := pool.Exec(t.Context(), `SELECT pg_stat_force_next_flush()`); err != nil {
			t.Fatal(err)
		}
		var now int
		if err := pool.QueryRow(t.Context(), `
			SELECT sum(pg_stat_get_blocks_fetched(c.oid)) FROM pg_class c
			WHERE c.oid = 'sagas'::regclass OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'sagas'::regclass)`).Scan(&now); err != nil {
			t.Fatal(err)
		}
		defer func() { before = now }()
		return now - before
	}
}

// backlog is so many due sagas, one in four of which has begun. The statistics stay those
// of the empty table.
func backlog(t *testing.T, pool *pgxpool.Pool, sagas int) {
	t.Helper()
	const batch = 20_000
	for n := 0; n < sagas; n += batch {
		if _, err := pool.Exec(t.Context(), `
			INSERT INTO sagas (merchant_id, id, definition, version, subject, state, step, data, attempts, abortable, begun, due_at, claim_at)
			SELECT 'mer_1', 'sag_' || lpad(n::text, 9, '0'), 'test', 1, 'ord_b' || n, 'running', 'reserve', '{}', (n % 4 = 0)::int, true, n % 4 = 0, due, due
			FROM generate_series($1::int, $2::int) n, LATERAL (SELECT now() - interval '1 hour' + make_interval(secs => n / 1000.0) AS due) d`,
			n+1, min(n+batch, sagas)); err != nil {
			t.Fatal(err)
		}
	}
}

// A claim costs the same however much waits, also while a transaction is held open that
// keeps the entries of all that has ended since in the index. A sweep reads the entries of
// what ended since the last one as well.
func TestAClaimReadsFewPagesOfALargeBacklog(t *testing.T) {
	const most, claims = 200, 200
	w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
	backlog(t, w.pool, 100_000)
	held, err := w.pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Rollback(t.Context()) }()
	if _, err := held.Exec(t.Context(), `SET LOCAL idle_in_transaction_session_timeout = 0; SELECT count(*) FROM merchants`); err != nil {
		t.Fatal(err)
	}
	other := w.pool
	pages := counted(t, w)
	w.forget() // of a worker that has just started, the first claim is a sweep
	total, worst, ended := 0, 0, 0
	for range claims {
		before := w.claims.sweepAt
		pages()
		claimed, err := w.claim(t.Context(), maxClaim, maxClaim/2)
		read, sweeps := pages(), !w.claims.sweepAt.Equal(before)
		if err != nil || len(claimed) != maxClaim {
			t.Fatalf("claimed %d sagas (%v)", len(claimed), err)
		}
		if total, worst = total+read, max(worst, read); !sweeps && read > most || sweeps && read > most+2*ended {
			t.Errorf("a claim read %d pages (sweep: %v, %d sagas ended since the last)", read, sweeps, ended)
		}
		if sweeps {
			ended = 0
		}
		var ids []string
		for _, i := range claimed {
			ids = append(ids, i.ID)
		}
		// The entries of what ended stay, since the held transaction might see them.
		if _, err := other.Exec(t.Context(), `UPDATE sagas SET state = 'completed', due_at = NULL, owner = NULL WHERE id = ANY ($1)`, ids); err != nil {
			t.Fatal(err)
		}
		ended += len(ids)
	}
	t.Logf("%d claims of %d sagas each read %d pages on average and %d at most", claims, maxClaim, total/claims, worst)
}

// forget makes the worker's next claim that of a new process.
func (w *Worker) forget() { w.claims = claims{} }

// A claim that has passed a saga is no reason to leave it: a sweep finds the saga of a worker
// that died, also after the worker that sweeps has claimed many others.
func TestASweepFindsWhatClaimsHavePassed(t *testing.T) {
	w, lost := committer(t, definition(), func(pgx.Tx) error { return nil })
	now := time.Now()
	w.Now = func() time.Time { return now }
	if claimed, err := w.claim(t.Context(), maxClaim, 0); err != nil || len(claimed) > 0 {
		t.Fatalf("claimed %d sagas that a worker holds (%v)", len(claimed), err)
	}
	if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET due_at = now()`); err != nil { // the lease ends
		t.Fatal(err)
	}
	now = now.Add(sweepEvery)
	claimed, err := w.claim(t.Context(), maxClaim, 0)
	if err != nil || len(claimed) != 1 || claimed[0].ID != lost.ID || claimed[0].epoch != lost.epoch+1 {
		t.Fatalf("claimed %v (%v)", claimed, err)
	}
}

// While a worker holds a saga, its saves change no index: they are HOT updates.
func TestASaveChangesNoIndex(t *testing.T) {
	d := definition()
	unused := func(context.Context, Request) Outcome { return Outcome{} }
	d.Steps[1].Do = Action{Name: "notify", Call: &Call{
		Execute: unused, Lookup: unused, Record: func(context.Context, Unit, *Instance, Outcome) error { return nil },
	}}
	w, i := committer(t, d, func(pgx.Tx) error { return nil })
	counted(t, w) // one session, whose statistics can be flushed
	if err := w.submit(t.Context(), t.Context(), &i, nil); err != nil {
		t.Fatal(err)
	}
	var updates, hot int
	if _, err := w.pool.Exec(t.Context(), `SELECT pg_stat_force_next_flush()`); err != nil {
		t.Fatal(err)
	}
	if err := w.pool.QueryRow(t.Context(), `
		SELECT pg_stat_get_tuples_updated(c), pg_stat_get_tuples_hot_updated(c) FROM CAST('sagas'::regclass AS oid) c`).Scan(&updates, &hot); err != nil {
		t.Fatal(err)
	}
	if updates < 1 || hot != updates {
		t.Errorf("%d of %d updates of a saga in hand were HOT", hot, updates)
	}
}

// What is due or in hand is unfinished; what waits for a time, or for a person, is not.
func TestUnfinishedIsWhatIsDueOrInHand(t *testing.T) {
	w, _ := committer(t, definition(), func(pgx.Tx) error { return nil })
	u := NewUnfinished(w.pool, definition())
	for _, c := range []struct {
		what, set string
		want      int
	}{
		{"in hand", `owner = 'w', due_at = now() + interval '5 seconds'`, 1},
		{"due", `owner = NULL, due_at = now()`, 1},
		{"due again", `attempts = 1, due_at = now()`, 1},
		{"waits for a time", `due_at = now() + interval '1 hour'`, 0},
		{"paused", `due_at = now(), paused_at = now()`, 0},
		{"resumed", `paused_at = NULL`, 1},
		{"of a version that is not known", `version = 2`, 0},
		{"parked", `version = 1, state = 'parked', parked = '{}', parked_from = 'running', due_at = NULL`, 0},
	} {
		if _, err := w.pool.Exec(t.Context(), `UPDATE sagas SET `+c.set); err != nil {
			t.Fatal(err)
		}
		if n, _, err := u.Count(t.Context(), 10); err != nil || n != c.want {
			t.Errorf("%s: %d unfinished, want %d (%v)", c.what, n, c.want, err)
		}
	}
	backlog(t, w.pool, 50)
	u = NewUnfinished(w.pool, definition())
	if n, oldest, err := u.Count(t.Context(), 20); err != nil || n != 20 || oldest < time.Hour-time.Minute {
		t.Errorf("%d unfinished, the oldest for %v (%v)", n, oldest, err)
	}
}
