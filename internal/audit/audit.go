package audit

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/provider"
)

// Audit knows where the state is. Read may be the same pool as Write.
type Audit struct {
	Write, Read *pgxpool.Pool
	// Provider is nil if nothing is to be compared with the provider.
	Provider provider.Inspector
	// Log is nil if the event log is not to be read.
	Log Log
	// From and To bound the payments that are compared with the provider, by the time at
	// which they were made. Zero: no bound.
	From, To time.Time
	// Settled says that nothing is under way any more: what is still live,
	// unpublished or unapplied is then a violation as well.
	Settled bool
	// Pause is how long a difference has to last. Default 250 ms.
	Pause time.Duration
	// Dir holds the temporary files. Default: the system's directory for them.
	Dir string
	// Done is called with what was looked at so far.
	Done func(what string, n int64)
}

// Finding is one invariant: how many things were looked at, and what is wrong.
type Finding struct {
	Invariant  int // its number in docs/architecture.md
	Name       string
	Counted    int64
	Violations []string
	Unnamed    int64  // violations beyond those
	Note       string // what was not looked at, and why
}

// maxNamed violations of an invariant are named, so that a table which is wrong as a
// whole does not fill the memory.
const maxNamed = 1000

func (f *Finding) violate(format string, args ...any) {
	if len(f.Violations) == maxNamed {
		f.Unnamed++
		return
	}
	f.Violations = append(f.Violations, fmt.Sprintf(format, args...))
}

// full reports that nothing more will be named.
func (f *Finding) full() bool { return len(f.Violations) == maxNamed }

const (
	defaultPause = 250 * time.Millisecond
	// looks at one difference, while it moves. A payment comes to rest: it ends, and its
	// refunds are bounded.
	maxLooks = 20
	pageSize = 500
)

// Run looks at everything. Nothing is held in memory but a page, and no transaction is
// open for longer than one statement takes. An error means that the audit could not be
// made, which says nothing about the invariants.
func (a Audit) Run(ctx context.Context) ([]Finding, error) {
	var findings []Finding
	for _, part := range []func(context.Context) ([]Finding, error){a.statements, a.compareViews, a.revalidated, a.compareLedger, a.compareLog} {
		found, err := part(ctx)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			a.done(f.Name, f.Counted)
		}
		findings = append(findings, found...)
	}
	return findings, nil
}

// snapshot runs fn over one snapshot of the write model.
func (a Audit) snapshot(ctx context.Context, fn func(tx pgx.Tx) error) error {
	tx, err := a.Write.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("open the write model: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // read only: there is nothing to lose
	if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`); err != nil {
		return fmt.Errorf("open the write model: %w", err)
	}
	return fn(tx)
}

func (a Audit) statements(ctx context.Context) (findings []Finding, err error) {
	for _, c := range checks {
		if err := a.snapshot(ctx, func(tx pgx.Tx) error {
			f, err := c.run(ctx, tx, a.Settled)
			findings = append(findings, f)
			return err
		}); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return findings, nil
}

func (a Audit) revalidated(ctx context.Context) (findings []Finding, err error) {
	err = a.snapshot(ctx, func(tx pgx.Tx) error {
		findings, err = revalidate(ctx, tx)
		return err
	})
	return findings, err
}

func (a Audit) done(what string, n int64) {
	if a.Done != nil {
		a.Done(what, n)
	}
}

// wait is over after the pause, or with the context.
func (a Audit) wait(ctx context.Context) error {
	select {
	case <-time.After(cmp.Or(a.Pause, defaultPause)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Print writes a line for each invariant and one for each violation, and reports
// whether there was none.
func Print(w io.Writer, findings []Finding) (clean bool, err error) {
	clean = true
	for _, f := range findings {
		verdict := "ok  "
		switch {
		case len(f.Violations) > 0:
			verdict, clean = "FAIL", false
		case f.Note != "" && f.Counted == 0:
			verdict = "skip"
		}
		if _, err = fmt.Fprintf(w, "%s  %2d  %-58s %8d checked, %d violations\n", verdict, f.Invariant, f.Name, f.Counted,
			int64(len(f.Violations))+f.Unnamed); err != nil {
			return clean, err
		}
		lines := f.Violations
		if f.Unnamed > 0 {
			lines = append(slices.Clip(lines), fmt.Sprintf("and %d more", f.Unnamed))
		}
		if f.Note != "" {
			lines = append(slices.Clip(lines), f.Note)
		}
		for _, v := range lines {
			if _, err = fmt.Fprintf(w, "          %s\n", v); err != nil {
				return clean, err
			}
		}
	}
	return clean, nil
}
