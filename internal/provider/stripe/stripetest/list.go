package stripetest

import (
	"cmp"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultLimit = 10
	mostLimit    = 100
)

func matches(f url.Values, param, value string) bool {
	return !f.Has(param) || f.Get(param) == value
}

func retrieve[T interface {
	*E
	node
}, E any](a *Account, all []T, param, what, id string, expand []string) answer {
	o := byID(all, id)
	if o == nil {
		return missing(param, what, id)
	}
	return ok(a.render(o, expand))
}

// list answers newest first, https://docs.stripe.com/api/pagination.
func list[T interface {
	*E
	node
}, E any](a *Account, address string, f url.Values, expand []string, all []T, want func(T) bool) answer {
	limit, refusal := limitOf(f)
	if refusal != nil {
		return *refusal
	}
	var found []T
	for _, o := range all {
		if want(o) && within(f, o.made()) {
			found = append(found, o)
		}
	}
	slices.Reverse(found)
	slices.SortStableFunc(found, func(x, y T) int { return cmp.Compare(y.made(), x.made()) })
	if after := f.Get("starting_after"); after != "" {
		at := slices.IndexFunc(found, func(o T) bool { return o.key() == after })
		if at < 0 {
			return missing("starting_after", "object", after)
		}
		found = found[at+1:]
	}
	if before := f.Get("ending_before"); before != "" {
		at := slices.IndexFunc(found, func(o T) bool { return o.key() == before })
		if at < 0 {
			return missing("ending_before", "object", before)
		}
		found = found[max(0, at-limit):at]
	}
	return ok(page(a, "list", address, found, a.bound(limit), expand))
}

func (a *Account) bound(limit int) int {
	if a.s.pageSize > 0 {
		return min(limit, a.s.pageSize)
	}
	return limit
}

func page[T node](a *Account, object, address string, found []T, limit int, expand []string) map[string]any {
	var inner []string
	for _, e := range expand {
		if rest, ok := strings.CutPrefix(e, "data."); ok {
			inner = append(inner, rest)
		}
	}
	data := []any{}
	for _, o := range found[:min(limit, len(found))] {
		data = append(data, a.render(o, inner))
	}
	return map[string]any{"object": object, "url": address, "has_more": len(found) > limit, "data": data}
}

func limitOf(f url.Values) (int, *answer) {
	if !f.Has("limit") {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(f.Get("limit"))
	if err != nil || n < 1 || n > mostLimit {
		refusal := failed(http.StatusBadRequest, "parameter_invalid_integer", "limit", "The limit must be between 1 and 100.")
		return 0, &refusal
	}
	return n, nil
}

// within checks a created filter: a time, or a range of times.
func within(f url.Values, created int64) bool {
	for param, holds := range map[string]func(bound int64) bool{
		"created":      func(b int64) bool { return created == b },
		"created[gt]":  func(b int64) bool { return created > b },
		"created[gte]": func(b int64) bool { return created >= b },
		"created[lt]":  func(b int64) bool { return created < b },
		"created[lte]": func(b int64) bool { return created <= b },
	} {
		if !f.Has(param) {
			continue
		}
		bound, err := strconv.ParseInt(f.Get(param), 10, 64)
		if err != nil || !holds(bound) {
			return false
		}
	}
	return true
}

var clause = regexp.MustCompile(`^(?:metadata\["([^"]+)"\]|(status|currency)):"([^"]*)"$`)

// searchIntents takes clauses on metadata, status and currency, joined by AND
// (https://docs.stripe.com/search#search-query-language).
func (a *Account) searchIntents(f url.Values, expand []string) answer {
	limit, refusal := limitOf(f)
	if refusal != nil {
		return *refusal
	}
	var clauses [][]string
	for part := range strings.SplitSeq(f.Get("query"), " AND ") {
		c := clause.FindStringSubmatch(strings.TrimSpace(part))
		if c == nil {
			return invalid("query", "We were unable to parse your search query.")
		}
		clauses = append(clauses, c)
	}
	var found []*intent
	for _, i := range slices.Backward(a.intents) {
		if a.frozen != nil && !a.frozen[i.ID] {
			continue
		}
		all := true
		for _, c := range clauses {
			value := map[string]string{"status": i.Status, "currency": i.Currency}[c[2]]
			if c[1] != "" {
				value = i.Metadata[c[1]]
			}
			all = all && value == c[3]
		}
		if all {
			found = append(found, i)
		}
	}
	skip := 0
	if p := f.Get("page"); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil || n > len(found) {
			return invalid("page", "There is no such page.")
		}
		skip = n
	}
	found = found[skip:]
	bound := a.bound(limit)
	body := page(a, "search_result", "/v1/payment_intents/search", found, bound, expand)
	body["next_page"] = nil
	if len(found) > bound {
		body["next_page"] = strconv.Itoa(skip + bound)
	}
	return ok(body)
}

// FreezeSearch keeps the search index as it is; thaw lets it catch up. What was just
// written appears in Stripe's index up to a minute later, in an incident up to an hour
// (https://docs.stripe.com/search#data-freshness).
func (a *Account) FreezeSearch() (thaw func()) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.frozen = map[string]bool{}
	for _, i := range a.intents {
		a.frozen[i.ID] = true
	}
	return func() {
		a.s.mu.Lock()
		defer a.s.mu.Unlock()
		a.frozen = nil
	}
}
