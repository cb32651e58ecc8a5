package report

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// Answer is a report's rows, in the order of their dimensions.
type Answer[Row any] struct {
	// AsOf: all that was committed by then is in it.
	AsOf time.Time
	// Every is how often the views are refreshed, when nothing is wrong.
	Every time.Duration
	Rows  []Row
}

// Group is what a row is about: the dimensions that were asked for. Period is the
// first day of a day, a week (from Monday) or a month; of those at the ends of the
// span, only the days within it are counted.
type Group struct {
	Period           string `json:"period,omitzero"`
	Merchant         string `json:"merchant,omitzero"`
	Currency         string `json:"currency,omitzero"`
	CurrencyExponent *int   `json:"currency_exponent,omitzero"`
	PaymentMethod    string `json:"payment_method,omitzero"`
	Status           string `json:"status,omitzero"`
	Code             string `json:"code,omitzero"`
	Step             string `json:"step,omitzero"`
	SKU              string `json:"sku,omitzero"`
	Definition       string `json:"definition,omitzero"`
	Outcome          string `json:"outcome,omitzero"`
}

func (g *Group) group() *Group { return g }

// RevenueRow sums captured payments by the day they were made. Refunded is what was
// given back of them until AsOf; Net is Gross less Refunded. In minor units.
type RevenueRow struct {
	Group
	Payments int64 `json:"payments"`
	Gross    int64 `json:"gross"`
	Refunded int64 `json:"refunded"`
	Net      int64 `json:"net"`
}

// ApprovalRow counts payments by the bank's answer to their authorization. The
// difference of Payments to both is what the bank was not asked about, or has not answered.
type ApprovalRow struct {
	Group
	Payments int64 `json:"payments"`
	Approved int64 `json:"approved"`
	Declined int64 `json:"declined"`
	Rate     Rate  `json:"rate"`
	// A payment of the group, and its payment method, for NameMethods.
	Example                 string `json:"example,omitzero"`
	PaymentMethodCiphertext []byte `json:"payment_method_ciphertext,omitzero"`
}

// Rate is approved of all that were answered. Decimal has four digits, rounded half
// up, and is null where there is nothing to divide by.
type Rate struct {
	Numerator   int64   `json:"numerator"`
	Denominator int64   `json:"denominator"`
	Decimal     *string `json:"decimal"`
}

// FailureRow counts failed payments by the day they were made.
type FailureRow struct {
	Group
	Payments int64 `json:"payments"`
}

// ProductRow is what was sold of an article, refunds not taken off: a refund is of a
// payment, not of a line. Rank is by Gross.
type ProductRow struct {
	Group
	Rank     int64 `json:"rank"`
	Quantity int64 `json:"quantity"`
	Gross    int64 `json:"gross"`
}

// RefundRow counts refunds by the day they were asked for.
type RefundRow struct {
	Group
	Refunds int64 `json:"refunds"`
	Amount  int64 `json:"amount"`
}

// DurationRow has for each percentile a time in milliseconds that is long enough for
// so many of the sagas, from their beginning to their end, waiting for a capture by
// hand included. Each is rounded up to two digits, by less than a tenth.
type DurationRow struct {
	Group
	Sagas int64 `json:"sagas"`
	P50   int64 `json:"p50_ms"`
	P90   int64 `json:"p90_ms"`
	P95   int64 `json:"p95_ms"`
	P99   int64 `json:"p99_ms"`
	Max   int64 `json:"max_ms"`
}

// Queries reads within a scope: what belongs to another merchant is not there.
type Queries struct {
	pool *pgxpool.Pool
}

// NewQueries takes the write database, where the views are.
func NewQueries(pool *pgxpool.Pool) *Queries { return &Queries{pool} }

// Revenue and its like refuse with CodeForbidden a merchant outside of the scope, with
// CodeReportNotReady before the first refresh, and with CodeInvalid what has more
// than MaxGroups rows.
func (r *Queries) Revenue(ctx context.Context, scope access.Scope, q Query) (Answer[RevenueRow], error) {
	return read[RevenueRow](ctx, r.pool, scope, q)
}

// ApprovalRate is by payment method unless the query says otherwise. Its rows have
// fingerprints for them until NameMethods.
func (r *Queries) ApprovalRate(ctx context.Context, scope access.Scope, q Query) (Answer[ApprovalRow], error) {
	a, err := read[ApprovalRow](ctx, r.pool, scope, q)
	for i := range a.Rows {
		a.Rows[i].Rate = newRate(a.Rows[i].Approved, a.Rows[i].Approved+a.Rows[i].Declined)
	}
	return a, err
}

// Failures is by the code of the failure unless the query says otherwise.
func (r *Queries) Failures(ctx context.Context, scope access.Scope, q Query) (Answer[FailureRow], error) {
	return read[FailureRow](ctx, r.pool, scope, q)
}

// TopProducts has the first Top of each currency.
func (r *Queries) TopProducts(ctx context.Context, scope access.Scope, q Query) (Answer[ProductRow], error) {
	return read[ProductRow](ctx, r.pool, scope, q)
}

// Refunds is by day and status unless the query says otherwise.
func (r *Queries) Refunds(ctx context.Context, scope access.Scope, q Query) (Answer[RefundRow], error) {
	return read[RefundRow](ctx, r.pool, scope, q)
}

// SagaDurations is of all merchants, and empty for a scope of one.
func (r *Queries) SagaDurations(ctx context.Context, scope access.Scope, q Query) (Answer[DurationRow], error) {
	return read[DurationRow](ctx, r.pool, scope, q)
}

// newRate divides by integers: no float comes near.
func newRate(numerator, denominator int64) Rate {
	r := Rate{Numerator: numerator, Denominator: denominator}
	if denominator > 0 {
		d := big.NewRat(numerator, denominator).FloatString(4)
		r.Decimal = &d
	}
	return r
}

// read asks for the rows and the time of what they show in one statement, so that
// a refresh that is committed in between cannot part them. The conditions stand on
// the views' indexes, by merchant and day or by day and currency.
func read[Row any, P interface {
	*Row
	group() *Group
}](ctx context.Context, pool *pgxpool.Pool, scope access.Scope, q Query) (a Answer[Row], err error) {
	k := kinds[q.Kind]
	args := []any{q.Top, q.From, q.To}
	conditions := []string{"$1::int > 0", "day >= $2::date", "day < $3::date"}
	and := func(condition string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf("%s = $%d", condition, len(args)))
	}
	merchantID, all := scope.Merchant()
	switch {
	case all:
		merchantID = q.Merchant
	case q.Merchant != "" && q.Merchant != merchantID:
		return a, payment.Errorf(payment.CodeForbidden, "A merchant reads its own reports only.")
	case k.everybodys:
		conditions = append(conditions, "false")
	}
	switch {
	case k.everybodys:
	case !all || merchantID != "":
		and("merchant_id", merchantID)
	case k.together && !slices.Contains(q.GroupBy, "merchant"):
		and("merchant_id", "*")
	case k.together:
		conditions = append(conditions, "merchant_id <> '*'")
	}
	if q.Currency != "" {
		and("currency", q.Currency)
	}
	p := k.plan(q.GroupBy, strings.Join(conditions, " AND "))
	order := p.names
	if q.Kind == TopProducts {
		order = strings.Replace(p.names, "merchant, currency, sku", "currency, rank", 1)
	}
	rows, err := postgres.Query(ctx, pool, fmt.Sprintf(`
		SELECT r.started_at, r.every, (SELECT coalesce(json_agg(d), '[]')::text FROM (%s ORDER BY %s LIMIT %d) d)
		FROM report_refreshes r WHERE r.failure IS NULL ORDER BY r.id DESC LIMIT 1`, k.sql(p), order, MaxGroups+1), args...)
	if err == nil {
		var document string
		document, err = collect(rows, &a.AsOf, &a.Every)
		if err == nil {
			err = json.Unmarshal([]byte(document), &a.Rows)
		}
	}
	switch {
	case postgres.NotPopulated(err) || errors.Is(err, pgx.ErrNoRows):
		return Answer[Row]{}, payment.Errorf(payment.CodeReportNotReady, "The reports are being made for the first time. Repeat the request later.")
	case err != nil:
		return Answer[Row]{}, fmt.Errorf("read the report %s: %w", q.Kind, err)
	case len(a.Rows) > MaxGroups:
		return Answer[Row]{}, &payment.Error{Code: payment.CodeInvalid, Message: "The query is not valid.", Fields: []payment.FieldError{{
			Pointer: "/query", Code: "too_many_groups", Message: fmt.Sprintf("has an answer of more than %d groups: narrow the span, or group by less", MaxGroups),
		}}}
	}
	a.AsOf = a.AsOf.UTC()
	for i := range a.Rows {
		g := P(&a.Rows[i]).group()
		if c, err := payment.ParseCurrency(g.Currency); err == nil {
			e := c.Exponent()
			g.CurrencyExponent = &e
		}
	}
	return a, nil
}

func collect(rows pgx.Rows, asOf *time.Time, every *time.Duration) (document string, err error) {
	return pgx.CollectOneRow(rows, func(row pgx.CollectableRow) (document string, err error) {
		err = row.Scan(asOf, every, &document)
		return document, err
	})
}

// Dimensions that the query's rows have, in the order of their members; a period by
// its length.
func (q Query) Dimensions() (names []string) {
	for _, d := range dimensions {
		if slices.Contains(q.GroupBy, d.name) || slices.Contains(kinds[q.Kind].always, d.name) {
			names = append(names, d.name)
		}
	}
	return names
}
