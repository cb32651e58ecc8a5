package audit

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Audit knows where the state is. Read may be the same pool as Write.
type Audit struct {
	Write, Read *pgxpool.Pool
	// Ledger is the URL of the provider's list of operations.
	Ledger string
	Client *http.Client
	// Settled says that nothing is under way any more: what is still live,
	// unpublished or unapplied is then a violation as well.
	Settled bool
}

// Finding is one invariant: how many things were looked at, and what is wrong.
type Finding struct {
	Invariant  int // its number in docs/architecture.md
	Name       string
	Counted    int64
	Violations []string
	Unnamed    int64 // violations beyond those
}

// maxNamed violations that are found row by row are named, so that a table which is
// wrong as a whole does not fill the memory.
const maxNamed = 1000

func (f *Finding) violate(format string, args ...any) {
	if len(f.Violations) == maxNamed {
		f.Unnamed++
		return
	}
	f.Violations = append(f.Violations, fmt.Sprintf(format, args...))
}

// Run looks at everything. An error means that the audit could not be made,
// which says nothing about the invariants.
func (a Audit) Run(ctx context.Context) ([]Finding, error) {
	// The read model comes first: what is read later can only be further on.
	views, err := a.views(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := a.Write.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("open the write model: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // read only: there is nothing to lose
	if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`); err != nil {
		return nil, fmt.Errorf("open the write model: %w", err)
	}
	var findings []Finding
	for _, c := range checks {
		f, err := c.run(ctx, tx, a.Settled)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		findings = append(findings, f)
	}
	payments, err := readPayments(ctx, tx)
	if err != nil {
		return nil, err
	}
	findings = append(findings, compareViews(payments, views, a.Settled))
	stored, err := revalidate(ctx, tx)
	if err != nil {
		return nil, err
	}
	findings = append(findings, stored...)
	// The ledger comes last: what a payment claims must be there by now.
	bank, err := a.compareLedger(ctx, payments)
	if err != nil {
		return nil, err
	}
	return append(findings, bank...), nil
}

// Print writes a line for each invariant and one for each violation, and reports
// whether there was none.
func Print(w io.Writer, findings []Finding) (clean bool, err error) {
	clean = true
	for _, f := range findings {
		verdict := "ok  "
		if len(f.Violations) > 0 {
			verdict, clean = "FAIL", false
		}
		if _, err = fmt.Fprintf(w, "%s  %2d  %-58s %8d checked, %d violations\n", verdict, f.Invariant, f.Name, f.Counted,
			int64(len(f.Violations))+f.Unnamed); err != nil {
			return clean, err
		}
		for _, v := range f.Violations {
			if _, err = fmt.Fprintf(w, "          %s\n", v); err != nil {
				return clean, err
			}
		}
		if f.Unnamed > 0 {
			if _, err = fmt.Fprintf(w, "          and %d more\n", f.Unnamed); err != nil {
				return clean, err
			}
		}
	}
	return clean, nil
}
