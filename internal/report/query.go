package report

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"payments/internal/payment"
)

// Bounds of a request and its answer.
const (
	DefaultDays  = 30
	DefaultTop   = 10
	MaxTop       = 100
	MaxGroups    = 10_000
	latestDay    = "9999-12-31"
	earliestYear = 1970
)

// Query is what is asked of a report. From and To are days of UTC, the span
// [From, To); GroupBy has at most one period.
type Query struct {
	Kind     Kind
	From, To time.Time
	Currency string // empty: all
	Merchant string // empty: all in scope
	GroupBy  []string
	Top      int // of top products: how many of each currency
}

// Parameters of a report's route.
func Parameters(k Kind) []string {
	p := []string{"from", "to", "group_by"}
	if !kinds[k].everybodys {
		p = append(p, "currency", "merchant")
	}
	if k == TopProducts {
		p = append(p, "limit")
	}
	return p
}

// ParseQuery reads the parameters of a report's route, each given at most once.
// Without a span it is the last 30 days, today included. Its error is a
// *payment.Error with one field for each refused parameter.
func ParseQuery(k Kind, values url.Values, now time.Time) (Query, error) {
	q := Query{Kind: k, Top: DefaultTop, Currency: values.Get("currency"), Merchant: values.Get("merchant")}
	var fields []payment.FieldError
	refuse := func(name, code, message string) {
		fields = append(fields, payment.FieldError{Pointer: "/query/" + name, Code: code, Message: message})
	}
	q.To = now.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	day := func(name string, into *time.Time) {
		if values.Has(name) {
			d, err := parseDay(values.Get(name))
			if err != nil {
				refuse(name, "date_invalid", err.Error())
			}
			*into = d
		}
	}
	day("to", &q.To)
	q.From = q.To.AddDate(0, 0, -DefaultDays)
	day("from", &q.From)
	if len(fields) == 0 && !q.From.Before(q.To) {
		refuse("to", "out_of_range", "must be after from")
	}
	if values.Has("currency") {
		if _, err := payment.ParseCurrency(q.Currency); err != nil {
			refuse("currency", "currency_invalid", err.Error())
		}
	}
	if values.Has("merchant") && !payment.ValidID(payment.PrefixMerchant, q.Merchant) {
		refuse("merchant", "id_invalid", "must be a merchant's id (mer_…)")
	}
	if values.Has("limit") {
		n, err := strconv.ParseUint(values.Get("limit"), 10, 8)
		if err != nil || n < 1 || n > MaxTop {
			refuse("limit", "out_of_range", fmt.Sprintf("must be from 1 to %d", MaxTop))
		}
		q.Top = int(n)
	}
	q.GroupBy = kinds[k].otherwise
	if values.Has("group_by") {
		var message string
		if q.GroupBy, message = kinds[k].parseGroups(values.Get("group_by")); message != "" {
			refuse("group_by", "group_invalid", message)
		}
	}
	if len(fields) > 0 {
		return Query{}, &payment.Error{Code: payment.CodeInvalid, Message: "The query is not valid.", Fields: fields}
	}
	return q, nil
}

// parseDay takes a full-date of RFC 3339, of UTC: the views know no part of a day.
func parseDay(s string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Year() < earliestYear || t.Format(time.DateOnly) > latestDay {
		return time.Time{}, fmt.Errorf("must be a day of UTC as YYYY-MM-DD, from the year %d on", earliestYear)
	}
	return t, nil
}

// parseGroups names no submitted word: an answer never repeats one.
func (k kind) parseGroups(s string) (groups []string, message string) {
	allowed := slices.Concat(periods, k.groups, k.always)
	period := false
	for g := range strings.SplitSeq(s, ",") {
		isPeriod := slices.Contains(periods, g)
		if !slices.Contains(allowed, g) || slices.Contains(groups, g) || isPeriod && period {
			return nil, "must be a comma-separated list of " + strings.Join(allowed, ", ") + ", each at most once, and of day, week and month at most one"
		}
		period = period || isPeriod
		groups = append(groups, g)
	}
	return groups, ""
}
