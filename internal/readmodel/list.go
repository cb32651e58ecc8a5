package readmodel

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// Page is a part of a list. Next is where the rest begins, nil at the end. A page
// of a search may be shorter than its limit although there is more.
type Page struct {
	Payments []Payment
	Next     *Cursor
}

// maxPage bounds what one List reads, for an export; a client's page is MaxLimit.
const maxPage = 1000

// List pages by what its last payment is ordered by, which neither changes nor is
// moved by new payments: none comes twice, and none is missed that was there.
func (q *Queries) List(ctx context.Context, scope access.Scope, f Filter) (Page, error) {
	limit := f.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	limit = min(max(limit, 1), maxPage)
	if f.Search != "" {
		return q.search(ctx, scope, f, limit)
	}
	var s statement
	sql := s.list(scope, f, limit+1)
	rows, err := postgres.QueryPlanned(ctx, q.pool, sql, s.args...)
	if err != nil {
		return Page{}, fmt.Errorf("list payments: %w", err)
	}
	payments, err := pgx.CollectRows(rows, scanPayment)
	if err != nil {
		return Page{}, fmt.Errorf("list payments: %w", err)
	}
	if len(payments) <= limit {
		return Page{Payments: payments}, nil
	}
	last := payments[limit-1]
	return Page{Payments: payments[:limit], Next: &Cursor{ID: last.ID, Amount: last.Amount}}, nil
}

// statement collects arguments. Its text is the code's own.
type statement struct {
	args []any
	// estimated: it is not to be run, and the planner is to guess its rows.
	estimated bool
}

func (s *statement) arg(v any) string {
	s.args = append(s.args, v)
	return "$" + strconv.Itoa(len(s.args))
}

// list gives the rows in the order of an index, so that a page costs what it holds,
// wherever in the list it is: of the one that begins with the filter (payment_view_status,
// _customer, _order, _currency, _method, _failure), of _amount, or of the primary
// key. Several statuses, and the merchants of a caller who sees all, are lists of their
// own that are merged, each no longer than the page: who sees all pays for each merchant,
// and no index is there for him alone.
func (s *statement) list(scope access.Scope, f Filter, limit int) string {
	order, merged := "v.payment_id", "payment_id"
	direction, beyond := " DESC", " < "
	if f.Sort.Ascending {
		direction, beyond = "", " > "
	}
	end := ""
	switch {
	case f.Sort.ByAmount:
		order, merged = "v.amount"+direction+", v.payment_id"+direction, "amount"+direction+", payment_id"+direction
		if f.After != nil {
			end = " AND (v.amount, v.payment_id)" + beyond + "(" + s.arg(f.After.Amount) + "::bigint, " + s.arg(f.After.ID) + "::text)"
		}
	default:
		order, merged = order+direction, merged+direction
		if f.After != nil {
			end = " AND v.payment_id" + beyond + s.arg(f.After.ID)
		}
	}
	most := " LIMIT " + s.arg(limit)
	end = s.conditions(f) + end
	branch := func(merchant, status string) string {
		return "WHERE " + merchant + status + end + " ORDER BY " + order + most
	}
	statuses := []string{""}
	if len(f.Statuses) > 0 {
		statuses = statuses[:0]
		for _, status := range f.Statuses {
			statuses = append(statuses, " AND v.status = "+s.arg(string(status)))
		}
	}
	merchant, all := s.merchant(scope, f)
	if all {
		merchant = "v.merchant_id = m.id"
	}
	columns := selectPayment
	switch {
	case all && f.Sort.ByAmount:
		columns = "SELECT v.merchant_id, v.payment_id, v.amount FROM payment_view v "
	case all:
		columns = "SELECT v.merchant_id, v.payment_id FROM payment_view v "
	case len(statuses) == 1:
		return columns + branch(merchant, statuses[0])
	}
	walks := make([]string, len(statuses))
	for i, status := range statuses {
		walks[i] = "(" + columns + branch(merchant, status) + ")"
	}
	union := strings.Join(walks, " UNION ALL ")
	if all {
		// A page of keys from each merchant's index, and then the payments of one page.
		return "SELECT l.* FROM (" + ofEveryMerchant(union) + " ORDER BY " + merged + most + ") k" + paymentOfKey + " OFFSET 0) l ORDER BY " + merged
	}
	return "SELECT * FROM (" + union + ") l ORDER BY " + merged + most
}

// paymentOfKey is what is read of each row of k, by the primary key; OFFSET 0 behind
// it keeps each lookup one.
const paymentOfKey = " CROSS JOIN LATERAL (" + selectPayment + "WHERE v.merchant_id = k.merchant_id AND v.payment_id = k.payment_id"

// ofEveryMerchant is the walk of each merchant m. It skips from merchant to merchant
// through the primary key.
func ofEveryMerchant(walk string) string {
	return `
	WITH RECURSIVE m (id) AS (
		(SELECT merchant_id FROM payment_view ORDER BY merchant_id LIMIT 1)
		UNION ALL
		SELECT (SELECT v.merchant_id FROM payment_view v WHERE v.merchant_id > m.id ORDER BY v.merchant_id LIMIT 1) FROM m WHERE m.id IS NOT NULL)
	SELECT w.* FROM m CROSS JOIN LATERAL (` + walk + `) w WHERE m.id IS NOT NULL`
}

// narrows counts the filters beside statuses and span.
func (f Filter) narrows() (n int) {
	for _, given := range []bool{
		len(f.Customer) > 0, len(f.Order) > 0, f.Currency != "", len(f.PaymentMethods) > 0, f.FailureCode != "", f.AmountMin > 0, f.AmountMax > 0,
	} {
		if given {
			n++
		}
	}
	return n
}

// merchant is the first condition of every query: the first column of the indexes.
// all: the caller sees all merchants and has named none.
func (s *statement) merchant(scope access.Scope, f Filter) (condition string, all bool) {
	own, all := scope.Merchant()
	switch {
	case !all && (f.Merchant == "" || f.Merchant == own):
		return "v.merchant_id = " + s.arg(own), false
	case !all:
		return "v.merchant_id = " + s.arg(own) + " AND false", false
	case f.Merchant != "":
		return "v.merchant_id = " + s.arg(f.Merchant), false
	}
	return "", true
}

// conditions beside merchant and status.
func (s *statement) conditions(f Filter) (sql string) {
	and := func(condition string, given bool, value any) {
		if given {
			sql += " AND v." + condition + s.arg(value)
		}
	}
	// Several values are several ranges of the index, and no longer in its order.
	among := func(column string, values []string) {
		if len(values) > 1 {
			sql += " AND v." + column + " = ANY (" + s.arg(values) + ")"
		} else if len(values) == 1 {
			and(column+" = ", true, values[0])
		}
	}
	among("customer_reference", f.Customer)
	among("order_reference", f.Order)
	and("currency = ", f.Currency != "", f.Currency)
	among("payment_method", f.PaymentMethods)
	and("failure_code = ", f.FailureCode != "", f.FailureCode)
	exact := f.AmountMin == f.AmountMax // and then in the order of ids within the index
	and("amount = ", exact && f.AmountMin > 0, f.AmountMin)
	and("amount >= ", !exact && f.AmountMin > 0, f.AmountMin)
	and("amount <= ", !exact && f.AmountMax > 0, f.AmountMax)
	return sql + s.span(f)
}

// span of time, as one of ids, and of created_at within that.
func (s *statement) span(f Filter) (sql string) {
	slack, exact := idSlack, ""
	if s.estimated {
		slack = 0
	}
	if !f.CreatedFrom.IsZero() {
		sql += " AND v.payment_id >= " + s.arg(idAt(f.CreatedFrom.Add(-slack)))
		exact += " AND v.created_at >= " + s.arg(f.CreatedFrom)
	}
	if !f.CreatedTo.IsZero() {
		sql += " AND v.payment_id < " + s.arg(idAt(f.CreatedTo.Add(slack)))
		exact += " AND v.created_at < " + s.arg(f.CreatedTo)
	}
	switch {
	case exact == "":
	case f.Sort.ByAmount && !s.estimated:
		sql += exact
	default:
		// The planner does not know that the ids say it already, and would take it for a
		// fraction of theirs: so few that all can be read and sorted. An expression that is
		// not null it takes for nearly all (DEFAULT_NOT_UNK_SEL, selfuncs.h).
		sql += " AND CASE WHEN true" + exact + " THEN 1 END IS NOT NULL"
	}
	return sql
}

// idSlack is how far an id's own time may be from the payment's created_at.
const idSlack = time.Hour

// idAt is the least id that can be made in the millisecond, so that a span of
// time is a span of the index.
func idAt(t time.Time) string {
	if t.Before(time.UnixMilli(0)) {
		t = time.UnixMilli(0)
	}
	return payment.Generator{Now: func() time.Time { return t }, Random: zeros{}}.New(payment.PrefixPayment)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
