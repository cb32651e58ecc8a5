package report

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// State of the views, by the database's clock. A zero time is: never.
type State struct {
	Now         time.Time
	RequestedAt time.Time // when an operator last asked for a refresh
	// The newest refresh that has ended, and why it failed, if it did.
	StartedAt, EndedAt time.Time
	Failure            string
	Failures           int // in a row
	// Of the newest that succeeded.
	AsOf    time.Time
	Every   time.Duration
	Seconds map[string]float64 // by view
}

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readState(ctx context.Context, db rowQuerier) (s State, err error) {
	var requested, started, ended, asOf *time.Time
	var every *time.Duration
	err = db.QueryRow(ctx, `
		SELECT clock_timestamp(), nullif(q.requested_at, '-infinity'), l.started_at, l.ended_at, coalesce(l.failure, ''),
			(SELECT count(*) FROM report_refreshes WHERE id > coalesce(s.id, 0)), s.started_at, s.every, coalesce(s.seconds, '{}')
		FROM report_request q
			LEFT JOIN LATERAL (SELECT * FROM report_refreshes ORDER BY id DESC LIMIT 1) l ON true
			LEFT JOIN LATERAL (SELECT * FROM report_refreshes WHERE failure IS NULL ORDER BY id DESC LIMIT 1) s ON true`).Scan(
		&s.Now, &requested, &started, &ended, &s.Failure, &s.Failures, &asOf, &every, &s.Seconds)
	if err != nil {
		return State{}, fmt.Errorf("read the state of reports: %w", err)
	}
	for _, t := range []struct{ to, from *time.Time }{
		{&s.RequestedAt, requested}, {&s.StartedAt, started}, {&s.EndedAt, ended}, {&s.AsOf, asOf},
	} {
		if t.from != nil {
			*t.to = t.from.UTC()
		}
	}
	if every != nil {
		s.Every = *every
	}
	return s, nil
}

// due is how long the next refresh still has to wait, 0 or less if it has not: for
// the interval, and for as long as the last one took, so that at most half of the
// time is spent on it; after a failure for a pause that grows. What was asked for
// since the last one began waits for nothing. After the database's clock was set back, the
// last refresh lies in the future: the next one is due now. A request that lies in the
// future does not count, or each look until then would make a refresh.
func (s State) due(interval time.Duration) time.Duration {
	switch {
	case s.StartedAt.IsZero() || s.StartedAt.After(s.Now) || s.EndedAt.After(s.Now):
		return 0
	case s.RequestedAt.After(s.StartedAt) && !s.RequestedAt.After(s.Now):
		return 0
	case s.Failures > 0:
		return s.EndedAt.Add(min(interval, firstRetry<<min(s.Failures-1, 16))).Sub(s.Now)
	}
	return s.StartedAt.Add(max(interval, 2*s.EndedAt.Sub(s.StartedAt))).Sub(s.Now)
}

// State is what operators see.
func (r *Queries) State(ctx context.Context) (State, error) { return readState(ctx, r.pool) }

// Request asks for a refresh, which the process that has the role makes within a
// few seconds, and gives the time that its AsOf will not be before. Asked twice
// before one begins, it is made once.
func (r *Queries) Request(ctx context.Context) (at time.Time, err error) {
	err = r.pool.QueryRow(ctx, `UPDATE report_request SET requested_at = clock_timestamp() RETURNING requested_at`).Scan(&at)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errors.New("report_request has lost its row")
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for a refresh of reports: %w", err)
	}
	return at.UTC(), nil
}
