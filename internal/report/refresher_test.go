package report

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/inbox"
	"payments/internal/postgres"
	"payments/internal/readmodel"
)

// hold keeps every refresh at its first view, until the returned function is called:
// a transaction that refreshes that view and does not end.
func (w *world) hold() (release func()) {
	w.t.Helper()
	tx, err := w.connect().Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := tx.Exec(w.t.Context(), `REFRESH MATERIALIZED VIEW CONCURRENTLY reports.approval_rate`); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(context.WithoutCancel(w.t.Context())); err != nil {
			w.t.Error(err)
		}
	}
}

// turn begins a turn of the refresher and returns once its refresh waits at what hold holds.
func (w *world) turn(r *Refresher) (pid int, ended <-chan error) {
	w.t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := r.RunOnce(w.t.Context())
		done <- err
	}()
	deadline := time.Now().Add(20 * time.Second)
	for pid == 0 {
		err := w.owner.QueryRow(w.t.Context(), `
			SELECT a.pid FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted AND l.relation = 'reports.approval_rate'::regclass
			WHERE a.datname = current_database() LIMIT 1`).Scan(&pid)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) || time.Now().After(deadline) {
			w.t.Fatalf("the refresh does not come to its first view: %v", err)
		}
	}
	return pid, done
}

func (w *world) ask() {
	w.t.Helper()
	if _, err := w.queries.Request(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) attempts() (n int) {
	w.t.Helper()
	if err := w.owner.QueryRow(w.t.Context(), `SELECT count(*) FROM report_refreshes`).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// net of all payments, and the time that the report gives it.
func (w *world) net() (sum int64, asOf time.Time) {
	w.t.Helper()
	a, err := w.queries.Revenue(w.t.Context(), w.all, query(Revenue, "month"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range a.Rows {
		sum += r.Net
	}
	return sum, a.AsOf
}

// refundOne gives one minor unit of one payment back, as the service does.
func (w *world) refundOne() (at time.Time) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), `
		UPDATE payments SET amount_refunded = amount_refunded + 1
		WHERE id = (SELECT min(id) FROM payments WHERE amount_refunded + 1 < amount_captured) RETURNING clock_timestamp()`).Scan(&at); err != nil {
		w.t.Fatal(err)
	}
	return at
}

// While a refresh stands in the middle, with every view refreshed and nothing
// committed, readers and writers go through. A plain REFRESH at the same place is the
// positive control: it locks readers out.
func TestARefreshBlocksNobody(t *testing.T) {
	w := newWorld(t, 500)
	w.refresh()
	before, _ := w.net()
	w.refundOne()
	tx, err := w.connect().BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), `SELECT report_refresh('1 hour')`); err != nil {
		t.Fatal(err)
	}
	if net, _ := w.net(); net != before {
		t.Errorf("what is not committed is seen: %d, before %d", net, before)
	}
	w.refundOne()
	w.ask()
	for _, sql := range []string{
		`INSERT INTO merchants (id, name) VALUES ('mer_01jqh000000000000000000099', 'X')`,
		`UPDATE sagas SET updated_at = now()`, `UPDATE refunds SET updated_at = now()`,
		`INSERT INTO order_lines SELECT * FROM order_lines WHERE false`, `UPDATE payments SET updated_at = now()`,
	} {
		if _, err := w.pool.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	var modes []string
	if err := tx.QueryRow(t.Context(), `
		SELECT array_agg(DISTINCT mode ORDER BY mode) FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN (
			'payments'::regclass, 'order_lines'::regclass, 'refunds'::regclass, 'sagas'::regclass, 'reports.revenue'::regclass)`).Scan(&modes); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(modes, "AccessExclusiveLock") || !slices.Contains(modes, "ExclusiveLock") {
		t.Errorf("locks: %v", modes)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if net, _ := w.net(); net != before-1 {
		t.Errorf("%d, want %d", net, before-1)
	}

	plain, err := w.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Rollback(context.WithoutCancel(t.Context()))
	if _, err := plain.Exec(t.Context(), `REFRESH MATERIALIZED VIEW reports.revenue`); err != nil {
		t.Fatal(err)
	}
	err = postgres.InTx(t.Context(), w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SET LOCAL lock_timeout = '20ms'`); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `SELECT * FROM report_revenue`)
		return err
	})
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "55P03" {
		t.Errorf("a plain refresh lets readers go on: %v", err)
	}
}

// as_of is the time of the snapshot, not of the end: what is committed while a
// refresh runs is not in it, and is later than it.
func TestAsOfIsTheTimeOfTheSnapshot(t *testing.T) {
	w := newWorld(t, 500)
	w.refresh()
	before, _ := w.net()
	first := w.refundOne()
	release := w.hold()
	r := w.refresher(RefresherConfig{})
	w.ask()
	_, ended := w.turn(r)
	second := w.refundOne()
	release()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	net, asOf := w.net()
	if net != before-1 || !asOf.After(first) || !asOf.Before(second) {
		t.Errorf("net %d, want %d; as of %s, want between %s and %s", net, before-1, asOf, first, second)
	}
	if s := w.state(); !s.AsOf.Equal(asOf) || !s.EndedAt.After(second) || len(s.Seconds) != len(kinds) {
		t.Errorf("%+v", s)
	}
	if got := testutil.ToFloat64(r.asOf.WithLabelValues()); got != float64(asOf.UnixMilli())/1e3 {
		t.Errorf("the metric says %f, the answer %s", got, asOf)
	}
}

func TestOfTwoProcessesOneRefreshes(t *testing.T) {
	w := newWorld(t, 500)
	w.refresh()
	release := w.hold()
	one, two := w.refresher(RefresherConfig{}), w.refresher(RefresherConfig{})
	w.ask()
	_, ended := w.turn(one)
	if _, err := two.RunOnce(t.Context()); err != nil || testutil.ToFloat64(two.refreshes.WithLabelValues("succeeded")) != 0 {
		t.Errorf("the second process: %v", err)
	}
	release()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := two.RunOnce(t.Context()); err != nil || w.attempts() != 2 { // the world's first, and this one
		t.Errorf("%d refreshes, %v", w.attempts(), err)
	}
}

// The server ends the session of a process that was killed, which this one does itself.
func TestAKilledProcessIsFollowed(t *testing.T) {
	w := newWorld(t, 500)
	w.refresh()
	before, asOf := w.net()
	w.refundOne()
	release := w.hold()
	w.ask()
	one, two := w.refresher(RefresherConfig{}), w.refresher(RefresherConfig{})
	pid, ended := w.turn(one)
	if _, err := w.pool.Exec(t.Context(), `SELECT pg_terminate_backend($1)`, pid); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("it does not notice")
	}
	release()
	if net, at := w.net(); net != before || !at.Equal(asOf) {
		t.Errorf("half a refresh is seen: %d as of %s", net, at)
	}
	w.ask()
	if _, err := two.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if net, at := w.net(); net != before-1 || !at.After(asOf) {
		t.Errorf("nobody followed: %d as of %s", net, at)
	}
}

func TestAFailedRefreshKeepsTheOldData(t *testing.T) {
	w := newWorld(t, 500)
	w.refresh()
	before, asOf := w.net()
	w.refundOne()
	release := w.hold()
	r := w.refresher(RefresherConfig{Timeout: 200 * time.Millisecond, Interval: time.Hour})
	w.ask()
	if _, err := r.RunOnce(t.Context()); !postgres.TimedOut(err) {
		t.Fatalf("%v", err)
	}
	release()
	if net, at := w.net(); net != before || !at.Equal(asOf) {
		t.Errorf("%d as of %s, want %d as of %s", net, at, before, asOf)
	}
	s := w.state()
	if s.Failures != 1 || !strings.Contains(s.Failure, "statement timeout") || !s.AsOf.Equal(asOf) || testutil.ToFloat64(r.failing.WithLabelValues()) != 1 ||
		testutil.ToFloat64(r.refreshes.WithLabelValues("failed")) != 1 {
		t.Errorf("%+v", s)
	}
	// It is not tried again at once, unless somebody asks.
	if _, err := r.RunOnce(t.Context()); err != nil || w.attempts() != 2 {
		t.Errorf("%d attempts, %v", w.attempts(), err)
	}
	w.ask()
	patient := w.refresher(RefresherConfig{Interval: time.Hour})
	if _, err := patient.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if net, at := w.net(); net != before-1 || !at.After(asOf) || w.state().Failures != 0 || testutil.ToFloat64(patient.failing.WithLabelValues()) != 0 {
		t.Errorf("%d as of %s, %+v", net, at, w.state())
	}
}

func TestDue(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		s    State
		want time.Duration
	}{
		"never":                   {State{}, 0},
		"just now":                {State{StartedAt: ago(time.Second), EndedAt: now}, 5*time.Minute - time.Second},
		"long ago":                {State{StartedAt: ago(6 * time.Minute), EndedAt: ago(5 * time.Minute)}, -time.Minute},
		"longer than half":        {State{StartedAt: ago(4 * time.Minute), EndedAt: now}, 4 * time.Minute},
		"asked for":               {State{StartedAt: ago(time.Second), EndedAt: now, RequestedAt: now}, 0},
		"asked for before":        {State{StartedAt: ago(time.Second), EndedAt: now, RequestedAt: ago(time.Minute)}, 5*time.Minute - time.Second},
		"failed":                  {State{StartedAt: ago(time.Hour), EndedAt: now, Failures: 1}, 10 * time.Second},
		"failed again":            {State{StartedAt: ago(time.Hour), EndedAt: now, Failures: 3}, 40 * time.Second},
		"failed often":            {State{StartedAt: ago(time.Hour), EndedAt: now, Failures: 300}, 5 * time.Minute},
		"failed and asked before": {State{StartedAt: ago(time.Second), EndedAt: now, Failures: 1, RequestedAt: ago(time.Minute)}, 10 * time.Second},
	} {
		c.s.Now = now
		if got := c.s.due(5 * time.Minute); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestARefreshNeedsItsSnapshotAndItsOwner(t *testing.T) {
	w := newWorld(t, 100)
	if _, err := w.pool.Exec(t.Context(), `SELECT report_refresh('1 hour')`); err == nil || !strings.Contains(err.Error(), "REPEATABLE READ") {
		t.Errorf("from several snapshots: %v", err)
	}
	w.refresh()
	for _, sql := range []string{`REFRESH MATERIALIZED VIEW CONCURRENTLY reports.revenue`, `DROP MATERIALIZED VIEW reports.revenue`, `DELETE FROM report_revenue`} {
		if _, err := w.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("the service's role may %s", sql)
		}
	}
}

// silent is a log of events without any.
type silent struct{}

func (silent) Spans(context.Context, string) (map[int][2]int64, error) {
	return map[int][2]int64{}, nil
}

func (silent) Read(context.Context, string, int, int64) ([]inbox.Message, error) { return nil, nil }

// A rebuild of the read model swaps its tables and refuses when a view is bound to
// them: the reports are bound to the write model, and go on as if nothing had been.
func TestTheReadModelIsRebuiltWhileReportsExist(t *testing.T) {
	w := newWorld(t, 500)
	w.refresh()
	w.refundOne()
	owner, err := postgres.Open(t.Context(), w.db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	r, err := readmodel.Rebuild(t.Context(), readmodel.RebuildConfig{
		Write: w.pool, Read: owner, Log: silent{}, Topic: "t", Consumer: "payment_view", Accept: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil || !r.Swapped || r.Payments != 500 {
		t.Fatalf("%+v %v", r, err)
	}
	before, _ := w.net()
	w.refresh()
	if net, _ := w.net(); net != before-1 {
		t.Errorf("%d, want %d", net, before-1)
	}
	var bound []string
	if err := w.owner.QueryRow(t.Context(), `
		SELECT array_agg(DISTINCT d.refobjid::regclass::text ORDER BY d.refobjid::regclass::text) FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
			JOIN pg_class v ON v.oid = r.ev_class AND v.relnamespace = 'reports'::regnamespace
		WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid`).Scan(&bound); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"order_lines", "payments", "refunds", "sagas"}, bound); d != "" {
		t.Error(d)
	}
}

// A refresh was made before the database's clock went back by an hour; another is made after.
func TestAsOfIsNotInTheFutureAfterTheClockWentBack(t *testing.T) {
	w := newWorld(t, 10)
	w.refresh()
	w.exec(`UPDATE report_refreshes SET started_at = started_at + interval '1 hour', ended_at = ended_at + interval '1 hour'`)
	s := w.state()
	if due := s.due(5 * time.Minute); due > 0 {
		t.Errorf("the next refresh is due in %s", due.Round(time.Second))
	}
	w.exec(`UPDATE report_request SET requested_at = now() + interval '2 hours'`) // an operator's request, so that one is made at all
	r := w.refresher(RefresherConfig{})
	if _, err := r.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := w.queries.Revenue(t.Context(), w.all, Query{Kind: Revenue, From: firstDay, To: lastDay, GroupBy: []string{"month"}, Top: 1})
	if err != nil {
		t.Fatal(err)
	}
	if ahead := time.Until(a.AsOf); ahead > time.Minute {
		t.Errorf("as_of, by which all that was committed is in the report, is %s ahead of now, and the views are of now", ahead.Round(time.Second))
	}
	if got := testutil.ToFloat64(r.asOf.WithLabelValues()); got != float64(a.AsOf.UnixMilli())/1e3 {
		t.Errorf("the metric says %f, the answer %s", got, a.AsOf)
	}
	if due := w.state().due(5 * time.Minute); due < 4*time.Minute {
		t.Errorf("the next refresh is due in %s: a request from before the clock went back counts again and again", due.Round(time.Second))
	}
}
