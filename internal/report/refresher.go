package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/text"
)

const (
	// refreshLock elects: one refresh a database.
	refreshLock = 0x72657066
	// firstRetry is the pause after a first failure; it doubles up to Interval.
	firstRetry = 10 * time.Second
	// heartbeatEvery is how often a refresh that runs says that its loop is alive.
	heartbeatEvery = 5 * time.Second
	endWithin      = 5 * time.Second
	// maxFailure is the length of a failure that is kept, in characters; the table has the same.
	maxFailure = 1000
)

// RefresherConfig needs a Registerer and a Log.
type RefresherConfig struct {
	// Interval from the begin of one refresh to that of the next, or twice as long as a
	// refresh takes, if that is more. Default 5 minutes.
	Interval time.Duration
	// Timeout of a whole refresh. Default 30 minutes.
	Timeout time.Duration
	// Heartbeat, which may be nil, is called from time to time while a refresh runs, so that
	// its loop is not taken for dead.
	Heartbeat  func()
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Refresher refreshes the views when they are due or an operator asked for it. Any
// number of processes may have one: a turn that finds another at work does nothing,
// and whoever comes next after a process that was killed takes its place.
type Refresher struct {
	RefresherConfig
	pool      *pgxpool.Pool
	asOf      *prometheus.GaugeVec // this and failing have no labels, and no series before they are measured
	interval  prometheus.Gauge
	failing   *prometheus.GaugeVec
	refreshes *prometheus.CounterVec
	view      *prometheus.GaugeVec
}

// NewRefresher registers payments_reports_as_of_timestamp_seconds,
// payments_reports_interval_seconds, payments_reports_failures,
// payments_reports_refreshes_total and payments_reports_view_seconds.
func NewRefresher(pool *pgxpool.Pool, c RefresherConfig) (*Refresher, error) {
	if pool == nil || c.Registerer == nil || c.Log == nil {
		return nil, errors.New("a refresher needs a pool, a registerer and a logger")
	}
	if c.Interval < 0 || c.Timeout < 0 {
		return nil, errors.New("a refresher's interval and timeout cannot be negative")
	}
	if c.Interval == 0 {
		c.Interval = 5 * time.Minute
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Minute
	}
	if c.Heartbeat == nil {
		c.Heartbeat = func() {}
	}
	r := &Refresher{
		RefresherConfig: c, pool: pool,
		asOf: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_reports_as_of_timestamp_seconds", Help: "The time of what the reports show; absent before the first refresh.",
		}, nil),
		interval: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_reports_interval_seconds", Help: "How often the reports are to be refreshed.",
		}),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_reports_failures", Help: "Refreshes that failed since the last one that succeeded, in all processes.",
		}, nil),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_reports_refreshes_total", Help: "Refreshes that this process made, by result: succeeded or failed.",
		}, []string{"result"}),
		view: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_reports_view_seconds", Help: "How long the last refresh of a view took.",
		}, []string{"view"}),
	}
	for _, metric := range []prometheus.Collector{r.asOf, r.interval, r.failing, r.refreshes, r.view} {
		if err := c.Registerer.Register(metric); err != nil {
			return nil, fmt.Errorf("register the reports' metrics: %w", err)
		}
	}
	r.interval.Set(c.Interval.Seconds())
	return r, nil
}

// RunOnce refreshes if that is due and nobody else does. A refresh that fails leaves
// the views as they were, and its error is kept beside them.
func (r *Refresher) RunOnce(ctx context.Context) (again bool, err error) {
	s, err := readState(ctx, r.pool)
	if err != nil {
		return false, err
	}
	r.tell(s)
	if s.due(r.Interval) > 0 {
		return false, nil
	}
	conn, err := r.session(ctx)
	if err != nil {
		return false, err
	}
	defer func() { // the lock goes with it
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	var elected bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, refreshLock).Scan(&elected); err != nil {
		return false, fmt.Errorf("lock the refresh of reports: %w", err)
	}
	if !elected {
		return false, nil
	}
	// Another may have refreshed since it was found due.
	if s, err = readState(ctx, conn); err != nil || s.due(r.Interval) > 0 {
		return false, err
	}
	err = r.refresh(ctx, conn, s.Now)
	if s, serr := readState(ctx, r.pool); serr == nil {
		r.tell(s)
	}
	return false, err
}

// session is a connection of its own, so that neither its settings nor its lock
// come into the pool. Should this process stop in the middle, the server ends the
// session, and the lock with it.
func (r *Refresher) session(ctx context.Context) (*pgx.Conn, error) {
	pooled, err := r.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a session for the refresh of reports: %w", err)
	}
	conn := pooled.Hijack()
	if _, err := conn.Exec(ctx, fmt.Sprintf(`
		SET statement_timeout = %d; SET idle_session_timeout = '15s'; SET client_connection_check_interval = '2s'; SET application_name = 'payments reports'; SET client_min_messages = 'warning'`,
		r.Timeout.Milliseconds())); err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("prepare the session for the refresh of reports: %w", err)
	}
	return conn, nil
}

// refresh is called with the lock held, which it has to be before the snapshot is taken.
func (r *Refresher) refresh(ctx context.Context, conn *pgx.Conn, started time.Time) error {
	stop := r.heartbeat(ctx)
	defer stop()
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT report_refresh($1::interval)`, r.Interval)
		return err
	})
	if err == nil {
		r.refreshes.WithLabelValues("succeeded").Inc()
		return nil
	}
	if ctx.Err() != nil { // we were told to stop: no fault of the views
		return fmt.Errorf("refresh reports: %w", err)
	}
	r.refreshes.WithLabelValues("failed").Inc()
	// By the pool, since this session may be what failed.
	if _, rerr := r.pool.Exec(ctx, `
		INSERT INTO report_refreshes (started_at, ended_at, every, failure) VALUES ($1, greatest(clock_timestamp(), $1), $2, $3)`,
		started, r.Interval, text.Line(err.Error(), maxFailure)); rerr != nil {
		err = errors.Join(err, fmt.Errorf("note the failure: %w", rerr))
	}
	return fmt.Errorf("refresh reports, which stay as they were: %w", err)
}

// heartbeat reports that the loop is alive until the returned function is called, or a refresh should long have ended.
func (r *Refresher) heartbeat(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout+heartbeatEvery)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(heartbeatEvery)
		defer tick.Stop()
		for {
			r.Heartbeat()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (r *Refresher) tell(s State) {
	if !s.AsOf.IsZero() {
		r.asOf.WithLabelValues().Set(float64(s.AsOf.UnixMilli()) / 1e3)
	}
	r.failing.WithLabelValues().Set(float64(s.Failures))
	for view, seconds := range s.Seconds {
		r.view.WithLabelValues(view).Set(seconds)
	}
}
