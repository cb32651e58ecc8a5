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

// Page is a part of a list, newest payment first.
type Page struct {
	Payments   []Payment
	HasMore    bool
	NextCursor string // empty without more
}

// List pages by the last id seen, which new payments do not move. A filter's
// index (payment_view_status, _customer, _order, _currency, or the primary key)
// gives the rows in order.
func (q *Queries) List(ctx context.Context, scope access.Scope, f Filter) (Page, error) {
	w := scoped(scope)
	if f.Status != "" {
		w.and("status = ", f.Status)
	}
	if f.Customer != "" {
		w.and("customer_reference = ", f.Customer)
	}
	if f.Order != "" {
		w.and("order_reference = ", f.Order)
	}
	if f.Currency != "" {
		w.and("currency = ", f.Currency)
	}
	if !f.CreatedFrom.IsZero() {
		w.and("created_at >= ", f.CreatedFrom)
		w.and("payment_id >= ", idAt(f.CreatedFrom.Add(-idSlack)))
	}
	if !f.CreatedTo.IsZero() {
		w.and("created_at < ", f.CreatedTo)
		w.and("payment_id < ", idAt(f.CreatedTo.Add(idSlack)))
	}
	if f.After != "" {
		id, ok := f.position()
		if !ok {
			return Page{}, &payment.Error{
				Code: payment.CodeInvalid, Message: invalidQuery, Fields: []payment.FieldError{cursorInvalid},
			}
		}
		w.and("payment_id < ", id)
	}
	limit := f.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	limit = min(max(limit, 1), MaxLimit)
	rows, err := postgres.Query(ctx, q.pool, selectPayment+w.sql()+" ORDER BY payment_id DESC LIMIT "+strconv.Itoa(limit+1), w.args...)
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
	payments = payments[:limit]
	return Page{Payments: payments, HasMore: true, NextCursor: f.cursor(payments[limit-1].ID)}, nil
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

// where collects conditions. Their text is the code's own, values are arguments.
type where struct {
	conditions []string
	args       []any
}

func (w *where) and(condition string, arg any) {
	w.args = append(w.args, arg)
	w.conditions = append(w.conditions, condition+"$"+strconv.Itoa(len(w.args)))
}

func (w *where) sql() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(w.conditions, " AND ")
}

// scoped begins every condition with the merchant, the first column of the
// indexes; an operator's has none.
func scoped(scope access.Scope) where {
	var w where
	if merchantID, all := scope.Merchant(); !all {
		w.and("merchant_id = ", merchantID)
	}
	return w
}
