package readmodel

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/readmodel/term"
)

// maxHits is how many terms one page of a search looks at where filters may refuse
// what they name: the page may then be short, and its cursor goes on from there.
const maxHits = 500

type hit struct{ MerchantID, Term, PaymentID string }

// search walks the terms that begin with the search, in their index, and reads the
// payments that they name. Its work is bounded whatever is searched for.
func (q *Queries) search(ctx context.Context, scope access.Scope, f Filter, limit int) (Page, error) {
	// A payment may be met by several of its words: few of the hits are to spare, and are
	// looked at if they are needed. Filters refuse any number of them.
	most, first := 2*limit+1, limit
	if len(f.Statuses) > 0 || f.narrows() > 0 || !f.CreatedFrom.IsZero() || !f.CreatedTo.IsZero() {
		most = max(most, maxHits)
		first = most
	}
	var s statement
	sql := s.hits(scope, f, most)
	rows, err := postgres.QueryPlanned(ctx, q.pool, sql, s.args...)
	if err != nil {
		return Page{}, fmt.Errorf("search payments: %w", err)
	}
	hits, err := pgx.CollectRows(rows, pgx.RowToStructByPos[hit])
	if err != nil {
		return Page{}, fmt.Errorf("search payments: %w", err)
	}
	first = min(first, len(hits))
	var page Page
	seen := 0
	for _, part := range [][]hit{hits[:first], hits[first:]} {
		found, err := q.hitPayments(ctx, f, part)
		if err != nil {
			return Page{}, err
		}
		for _, h := range part {
			p, ok := found[h.PaymentID]
			// By the first of its words alone, so that it does not come twice.
			if ok && term.First(f.Search, p.OrderReference, p.CustomerReference) == h.Term {
				page.Payments = append(page.Payments, p)
			}
			seen++
			if last := seen == len(hits); len(page.Payments) == limit && !last || last && len(hits) == most {
				page.Next = &Cursor{ID: h.PaymentID, Term: h.Term}
				return page, nil
			}
		}
	}
	return page, nil
}

// hits relies on payment_term_found.
func (s *statement) hits(scope access.Scope, f Filter, most int) string {
	from, to := term.Range(f.Search)
	order := " ORDER BY v.term, v.payment_id DESC LIMIT " + s.arg(most)
	below := " AND v.term < " + s.arg(to)
	merchant, all := s.merchant(scope, f)
	if all {
		merchant = "v.merchant_id = m.id"
	}
	const columns = "SELECT v.merchant_id, v.term, v.payment_id FROM payment_term v WHERE "
	var union string
	if f.After == nil {
		union = columns + merchant + " AND v.term >= " + s.arg(from) + below + order
	} else {
		at := s.arg(f.After.Term)
		union = "(" + columns + merchant + " AND v.term = " + at + " AND v.payment_id < " + s.arg(f.After.ID) + order + ") UNION ALL (" +
			columns + merchant + " AND v.term > " + at + below + order + ")"
	}
	merged := " ORDER BY term, payment_id DESC LIMIT " + s.arg(most)
	if all {
		return ofEveryMerchant(union) + merged
	}
	return "SELECT * FROM (" + union + ") l" + merged
}

// hitPayments are those that the filters let through.
func (q *Queries) hitPayments(ctx context.Context, f Filter, hits []hit) (map[string]Payment, error) {
	if len(hits) == 0 {
		return nil, nil
	}
	var s statement
	sql := s.named(f, hits)
	rows, err := postgres.Query(ctx, q.pool, sql, s.args...)
	if err != nil {
		return nil, fmt.Errorf("read found payments: %w", err)
	}
	payments, err := pgx.CollectRows(rows, scanPayment)
	if err != nil {
		return nil, fmt.Errorf("read found payments: %w", err)
	}
	found := make(map[string]Payment, len(payments))
	for _, p := range payments {
		found[p.ID] = p
	}
	return found, nil
}

func (s *statement) named(f Filter, hits []hit) string {
	seen := make(map[string]bool, len(hits))
	var merchants, ids []string
	for _, h := range hits {
		if !seen[h.PaymentID] {
			seen[h.PaymentID] = true
			merchants, ids = append(merchants, h.MerchantID), append(ids, h.PaymentID)
		}
	}
	from := "SELECT l.* FROM unnest(" + s.arg(merchants) + "::text[], " + s.arg(ids) + "::text[]) AS k (merchant_id, payment_id)" + paymentOfKey
	if len(f.Statuses) > 0 {
		from += " AND v.status = ANY (" + s.arg(statusTexts(f.Statuses)) + "::text[])"
	}
	return from + s.conditions(f) + " OFFSET 0) l"
}

func statusTexts(statuses []payment.Status) []string {
	all := make([]string, len(statuses))
	for i, s := range statuses {
		all[i] = string(s)
	}
	return all
}
