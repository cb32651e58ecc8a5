package readmodel

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"payments/internal/payment"
	"payments/internal/readmodel/term"
)

// Limits of a page's length.
const (
	DefaultLimit = 20
	MaxLimit     = 100
)

// Filter narrows a list; a zero member does not. CreatedFrom and CreatedTo are
// the half-open span [from, to). Amounts are in minor units, both ends included.
// After is where a page ended, and holds for the same filters and order only.
type Filter struct {
	Merchant string // beside the scope, which it can only narrow
	Statuses []payment.Status
	// Customer and Order are business keys. Rows from before there were any may have the
	// form that the client gave, which stands second if it is another.
	Customer []string
	Order    []string
	Currency string
	// PaymentMethods are the fingerprints that rows may have of one: several while the
	// pepper is being rotated. ParseFilter has no keys, and leaves the token here.
	PaymentMethods []string
	FailureCode    string
	AmountMin      int64
	AmountMax      int64
	CreatedFrom    time.Time
	CreatedTo      time.Time
	// Search is a folded text (term.Fold). It orders the list itself: what is found
	// by the shorter word first, and of one word the newest payment.
	Search string
	Sort   Sort // of a list without Search
	Limit  int
	After  *Cursor
	Count  bool // wanted beside the page
	Expand Expand
}

// Sort is newest first unless it says otherwise. A payment's id carries the
// millisecond in which it was made, and decides among equal amounts.
type Sort struct{ ByAmount, Ascending bool }

// Expand says what is wanted beside each payment.
type Expand struct{ Timeline, Refunds bool }

const invalidQuery = "The query is not valid."

// MaxExpanded bounds a page whose payments are expanded.
const MaxExpanded = 25

// ParseFilter reads the query of GET /v1/payments, less the cursor. Its error is a
// *payment.Error with one field for each refused parameter.
func ParseFilter(query url.Values) (Filter, error) {
	f := Filter{Limit: DefaultLimit}
	var fields []payment.FieldError
	refuse := func(pointer, code, message string) {
		fields = append(fields, payment.FieldError{Pointer: pointer, Code: code, Message: message})
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		set := f.setter(name)
		switch {
		case set == nil:
			fields = append(fields, payment.UnknownParameter(name, listParameters()))
		case len(query[name]) != 1:
			refuse("/query/"+name, "parameter_repeated", "must be given once")
		default:
			if code, message := set(query[name][0]); code != "" {
				refuse("/query/"+name, code, message)
			}
		}
	}
	if !f.CreatedFrom.IsZero() && !f.CreatedTo.IsZero() && !f.CreatedFrom.Before(f.CreatedTo) {
		refuse("/query/created_to", "out_of_range", "must be after created_from")
	}
	if f.AmountMin > 0 && f.AmountMax > 0 && f.AmountMin > f.AmountMax {
		refuse("/query/amount_max", "out_of_range", "must not be below amount_min")
	}
	if f.Search != "" && query.Has("sort") {
		refuse("/query/sort", "sort_with_search", "cannot be given with q, which has an order of its own")
	}
	if f.Expand != (Expand{}) && f.Limit > MaxExpanded {
		refuse("/query/limit", "out_of_range", fmt.Sprintf("must be from 1 to %d with expand", MaxExpanded))
	}
	if len(fields) > 0 {
		return Filter{}, &payment.Error{Code: payment.CodeInvalid, Message: invalidQuery, Fields: fields}
	}
	return f, nil
}

// ParseExpand reads the query's one parameter of that name.
func ParseExpand(query url.Values) (Expand, error) {
	var f Filter
	if !query.Has("expand") {
		return f.Expand, nil
	}
	if code, message := f.setExpand(query.Get("expand")); code != "" {
		return f.Expand, &payment.Error{
			Code: payment.CodeInvalid, Message: invalidQuery, Fields: []payment.FieldError{{Pointer: "/query/expand", Code: code, Message: message}},
		}
	}
	return f.Expand, nil
}

// listParameters are those of GET /v1/payments.
func listParameters() []string {
	return []string{
		"status", "customer", "order", "currency", "payment_method", "failure_code", "amount_min", "amount_max", "created_from", "created_to",
		"merchant", "q", "sort", "count", "expand", "limit", "cursor",
	}
}

// setter is nil for an unknown parameter. What it returns for a refused value is
// the code and message of the field's error.
func (f *Filter) setter(name string) func(value string) (code, message string) {
	switch name {
	case "merchant":
		return func(value string) (string, string) {
			if !payment.ValidID(payment.PrefixMerchant, value) {
				return "id_invalid", "must be a merchant's id (mer_…)"
			}
			f.Merchant = value
			return "", ""
		}
	case "status":
		return f.setStatuses
	case "currency":
		return func(value string) (string, string) {
			if _, err := payment.ParseCurrency(value); err != nil {
				return "currency_invalid", err.Error()
			}
			f.Currency = value
			return "", ""
		}
	case "customer":
		return setKey(&f.Customer)
	case "order":
		return setKey(&f.Order)
	case "payment_method":
		return func(value string) (string, string) {
			if err := payment.CheckPaymentMethod(value); err != nil {
				return "payment_method_invalid", err.Error()
			}
			f.PaymentMethods = []string{value}
			return "", ""
		}
	case "failure_code":
		return setText(&f.FailureCode)
	case "amount_min":
		return setAmount(&f.AmountMin)
	case "amount_max":
		return setAmount(&f.AmountMax)
	case "created_from":
		return setTime(&f.CreatedFrom)
	case "created_to":
		return setTime(&f.CreatedTo)
	case "q":
		return f.setSearch
	case "sort":
		return f.setSort
	case "limit":
		return func(value string) (string, string) {
			n, err := strconv.ParseUint(value, 10, 8)
			if err != nil || n < 1 || n > MaxLimit {
				return "out_of_range", fmt.Sprintf("must be from 1 to %d", MaxLimit)
			}
			f.Limit = int(n)
			return "", ""
		}
	case "count":
		return func(value string) (string, string) {
			if f.Count = value == "estimated"; !f.Count {
				return "count_invalid", "must be estimated"
			}
			return "", ""
		}
	case "expand":
		return f.setExpand
	}
	return nil
}

func (f *Filter) setStatuses(value string) (string, string) {
	for word := range strings.SplitSeq(value, ",") {
		status, ok := payment.ParseStatus(word)
		if !ok || slices.Contains(f.Statuses, status) {
			return "status_invalid", "must be one of " + listed(payment.Statuses()) + ", or several by comma, each once"
		}
		f.Statuses = append(f.Statuses, status)
	}
	return "", ""
}

func listed(all []payment.Status) string {
	words := make([]string, len(all))
	for i, s := range all {
		words[i] = string(s)
	}
	return strings.Join(words, ", ")
}

func (f *Filter) setSearch(value string) (code, message string) {
	var text string
	if code, message = setText(&text)(value); code != "" {
		return code, message
	}
	if f.Search = term.Fold(text); f.Search == "" {
		return "text_invalid", "must have a character that can be searched for"
	}
	return "", ""
}

func (f *Filter) setSort(value string) (code, message string) {
	name, descending := strings.CutPrefix(value, "-")
	f.Sort = Sort{ByAmount: name == "amount", Ascending: !descending}
	if name != "amount" && name != "created_at" {
		return "sort_invalid", "must be created_at or amount, with - before it for the greatest first"
	}
	return "", ""
}

func (f *Filter) setExpand(value string) (code, message string) {
	for word := range strings.SplitSeq(value, ",") {
		switch {
		case word == "timeline" && !f.Expand.Timeline:
			f.Expand.Timeline = true
		case word == "refunds" && !f.Expand.Refunds:
			f.Expand.Refunds = true
		default:
			return "expand_invalid", "must be timeline, refunds, or both by comma"
		}
	}
	return "", ""
}

func setAmount(to *int64) func(string) (string, string) {
	return func(value string) (string, string) {
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || n < 1 || n > uint64(payment.MaxAmount) {
			return "out_of_range", fmt.Sprintf("must be from 1 to %d minor units", payment.MaxAmount)
		}
		*to = int64(n)
		return "", ""
	}
}

// setText refuses what no stored text can be, NUL above all, which Postgres would
// refuse with an error.
func setText(to *string) func(string) (string, string) {
	return func(value string) (string, string) {
		if err := payment.CheckText(value, payment.MaxReference); err != nil {
			return "text_invalid", err.Error()
		}
		*to = value
		return "", ""
	}
}

// setKey takes a reference in any spelling that a payment may be posted with.
func setKey(to *[]string) func(string) (string, string) {
	return func(value string) (string, string) {
		key, err := payment.BusinessKey(value, payment.MaxReference)
		if err != nil {
			return "text_invalid", err.Error()
		}
		if *to = []string{key}; key != value {
			*to = append(*to, value)
		}
		return "", ""
	}
}

func setTime(to *time.Time) func(string) (string, string) {
	return func(value string) (string, string) {
		t, err := payment.ParseTime(value)
		if err != nil {
			return "time_invalid", err.Error()
		}
		*to = t
		return "", ""
	}
}
