package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// ReconcilerConfig of a Reconciler; every member is needed.
type ReconcilerConfig struct {
	Interval  time.Duration // from the end of one comparison to the begin of the next
	Days      int           // how far back a comparison goes
	Pause     func(context.Context) error
	Heartbeat func() // called while a turn goes on
	Now       func() time.Time
	Log       *slog.Logger

	Registerer prometheus.Registerer
}

// Reconciler compares the last days with the provider, again and again, and lets the
// books follow. Of several processes one at a time does it, a part of the range a turn.
type Reconciler struct {
	ReconcilerConfig
	orders      *Service
	name        string               // of the comparison; RunOnce's own
	differences *prometheus.GaugeVec // this and finished have no labels, and no series before they are measured
	finished    *prometheus.GaugeVec
	open        *prometheus.GaugeVec
}

const (
	// settling is how recent a payment is left out: its notifications and sagas are on their way.
	settling = 10 * time.Minute
	// turnFor is how long one turn compares before it gives way.
	turnFor = 10 * time.Second
	// leaseFor outlasts a page of the provider's list, each of whose payments is looked at.
	leaseFor = 10 * time.Minute

	// scheduledRange is the comparison with one account: its cursor means nothing to another.
	scheduledRange = "scheduled "
)

// NewReconciler registers its metrics.
func NewReconciler(s *Service, c ReconcilerConfig) (*Reconciler, error) {
	r := &Reconciler{
		ReconcilerConfig: c, orders: s,
		differences: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_provider_differences", Help: "Differences that the last scheduled comparison with the provider found.",
		}, nil),
		finished: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_provider_compared_timestamp_seconds", Help: "When the last scheduled comparison with the provider ended.",
		}, nil),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_provider_changes_open", Help: "Changes at the provider's side that wait for an operator, by kind.",
		}, []string{"kind"}),
	}
	for _, m := range []prometheus.Collector{r.differences, r.finished, r.open} {
		if err := c.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("register the comparison's metrics: %w", err)
		}
	}
	return r, nil
}

// scheduled is the row of the comparison, held by a lease.
type scheduled struct {
	from, to    time.Time
	cursor      string
	differences int64
	lease       time.Time
}

// errTurnOver ends a comparison whose turn is over; its cursor is kept.
var errTurnOver = errors.New("the turn is over")

// RunOnce compares for a while, if a comparison with the provider's account is due and no other
// process has it.
func (r *Reconciler) RunOnce(ctx context.Context) (again bool, err error) {
	use, err := r.orders.LearnAccount(ctx)
	if err != nil {
		return false, errors.Join(fmt.Errorf("ask for the provider's account: %w", err), r.measure(ctx))
	}
	r.name = scheduledRange + use.Account
	if err := r.measure(ctx); err != nil {
		return false, err
	}
	s, ok, err := r.claim(ctx)
	if err != nil || !ok {
		return false, err
	}
	until := r.Now().Add(turnFor)
	found := s.differences
	_, err = r.orders.CompareRange(ctx, RangeComparison{
		From: s.from, To: s.to, Cursor: s.cursor, Follow: true,
		Pause: func(ctx context.Context) error {
			r.Heartbeat()
			return r.Pause(ctx)
		},
		Found: func(d Difference) error {
			found++
			r.Log.WarnContext(ctx, "payment differs from the provider", "payment", d.PaymentID, "kind", string(d.Kind), "subject", d.Subject,
				"detail", d.Detail, "followed", d.Followed)
			return nil
		},
		Reached: func(cursor string) error {
			s.cursor = cursor
			if err := r.keep(ctx, &s, found, false); err != nil {
				return err
			}
			if r.Now().After(until) {
				return errTurnOver
			}
			return nil
		},
	})
	if errors.Is(err, errTurnOver) {
		return true, r.release(ctx, s)
	}
	if err != nil {
		return false, errors.Join(err, r.release(ctx, s))
	}
	if err := r.keep(ctx, &s, found, true); err != nil {
		return false, err
	}
	return false, errors.Join(r.release(ctx, s), r.measure(ctx))
}

// claim takes the range that is under way, or begins the next if that is due.
func (r *Reconciler) claim(ctx context.Context) (s scheduled, ok bool, err error) {
	now := r.Now()
	to := now.Add(-settling)
	if _, err := r.orders.Pool.Exec(ctx, `
		INSERT INTO provider_comparisons (name, range_from, range_to) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		r.name, to.AddDate(0, 0, -r.Days), to); err != nil {
		return s, false, fmt.Errorf("begin the comparison: %w", err)
	}
	err = r.orders.Pool.QueryRow(ctx, `
		UPDATE provider_comparisons SET leased_until = clock_timestamp() + $4::interval, finished_at = NULL, updated_at = now(),
			range_from = CASE WHEN finished_at IS NULL THEN range_from ELSE $2 END,
			range_to = CASE WHEN finished_at IS NULL THEN range_to ELSE $3 END,
			cursor = CASE WHEN finished_at IS NULL THEN cursor ELSE '' END,
			differences = CASE WHEN finished_at IS NULL THEN differences ELSE 0 END
		WHERE name = $1 AND (leased_until < now() OR leased_until > now() + 2 * $4::interval) -- of before the clock was set back
			AND (finished_at IS NULL OR finished_at <= $5 OR finished_at > $6)
		RETURNING range_from, range_to, cursor, differences, leased_until`,
		r.name, to.AddDate(0, 0, -r.Days), to, leaseFor, now.Add(-r.Interval), now.Add(leaseFor)).
		Scan(&s.from, &s.to, &s.cursor, &s.differences, &s.lease)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("claim the comparison: %w", err)
	}
	return s, true, nil
}

// keep writes how far the comparison has come, and renews its lease.
func (r *Reconciler) keep(ctx context.Context, s *scheduled, differences int64, finished bool) error {
	var end *time.Time
	if finished {
		now := r.Now()
		end = &now
	}
	err := r.orders.Pool.QueryRow(ctx, `
		UPDATE provider_comparisons SET cursor = $3, differences = $4, finished_at = $5, updated_at = now(),
			last_finished_at = coalesce($5, last_finished_at), last_found = CASE WHEN $5::timestamptz IS NULL THEN last_found ELSE $4 END,
			leased_until = clock_timestamp() + $6::interval
		WHERE name = $1 AND leased_until = $2 RETURNING leased_until`, r.name, s.lease, s.cursor, differences, end, leaseFor).Scan(&s.lease)
	if errors.Is(err, pgx.ErrNoRows) {
		return errors.New("another process has taken the comparison with the provider")
	}
	if err != nil {
		return fmt.Errorf("keep the comparison's cursor: %w", err)
	}
	return nil
}

// release gives the lease back, also of a process that was told to stop.
func (r *Reconciler) release(ctx context.Context, s scheduled) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := r.orders.Pool.Exec(ctx, `UPDATE provider_comparisons SET leased_until = '-infinity' WHERE name = $1 AND leased_until = $2`,
		r.name, s.lease); err != nil {
		return fmt.Errorf("give the comparison back: %w", err)
	}
	return nil
}

// measure tells what stands in the database, so that every process tells the same.
func (r *Reconciler) measure(ctx context.Context) error {
	var found *int64
	var finished *time.Time
	err := r.orders.Pool.QueryRow(ctx, `SELECT last_found, last_finished_at FROM provider_comparisons WHERE name = $1`, r.name).Scan(&found, &finished)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read the comparison: %w", err)
	}
	if found != nil && finished != nil {
		r.differences.WithLabelValues().Set(float64(*found))
		r.finished.WithLabelValues().Set(float64(finished.UnixMilli()) / 1e3)
	}
	rows, err := r.orders.Pool.Query(ctx, `SELECT kind, count(*) FROM provider_changes WHERE state = 'open' GROUP BY kind`)
	if err != nil {
		return fmt.Errorf("count open changes: %w", err)
	}
	counts := map[string]float64{}
	for _, kind := range openKinds {
		counts[string(kind)] = 0
	}
	var kind string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&kind, &n}, func() error {
		counts[kind] = float64(n)
		return nil
	}); err != nil {
		return fmt.Errorf("count open changes: %w", err)
	}
	for kind, n := range counts {
		r.open.WithLabelValues(kind).Set(n)
	}
	return nil
}

var openKinds = []ChangeKind{ //nolint:gochecknoglobals // a constant, were slices constants
	RefundOutside, CaptureOutside, VoidOutside, Disputed,
	CaptureUnfit, CaptureMissing, RefundMissing, HeldAfterEnd, AuthorizedTwice, OtherAmount, RefundsOverBounds,
}

// Pace gives a pause that lets perSecond requests through in a second, one after another.
func Pace(perSecond int) func(context.Context) error {
	every := time.Second / time.Duration(perSecond)
	tick := time.NewTicker(every)
	return func(ctx context.Context) error {
		select {
		case <-tick.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
