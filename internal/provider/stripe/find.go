package stripe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/stripe/stripe-go/v85"

	"payments/internal/provider"
)

// indexed is how long after a write the search index has it, but for an incident
// (https://docs.stripe.com/search#data-freshness).
const indexed = time.Minute

// findAuthorization looks for a PaymentIntent whose id is not known. It asks the search by
// metadata first, which takes one request however busy the account is. What the search
// does not have is read from the list, which is consistent. On a busy account the list of
// an hour takes more pages than one lookup has time for, so each lookup goes on where the
// one before it stopped. Each of the two has half of the lookup's time.
func (c *Client) findAuthorization(ctx context.Context, op provider.Operation, amount int64) (provider.Result, error) {
	made := c.created(op.Reference)
	// A sender that stood still may have sent after the last request that was expected.
	late := !op.Until.IsZero() && c.now().After(op.Until.Add(skew))
	var searching error // why the search says nothing
	searchable, budget := true, c.timeout
	if late || c.now().Sub(made) > indexed {
		budget /= 2
		r, err := c.searched(ctx, budget, op, amount)
		if err == nil && r.Outcome != provider.NotFound {
			c.passes.end(op.Key)
			return r, nil
		}
		e, answered := errors.AsType[*stripe.Error](err)
		switch {
		// There is no search for accounts in India, nor for a restricted key without the right to it.
		case answered && (e.HTTPStatusCode == http.StatusBadRequest || e.HTTPStatusCode == http.StatusForbidden):
			searchable = false
		case answered && e.HTTPStatusCode == http.StatusUnauthorized:
			return provider.Result{}, err
		default:
			searching = err
		}
	}
	until := op.Until
	if late && !searchable {
		until = time.Time{} // what came later is in no other place
	}
	r, err := c.listed(ctx, budget, op, amount, made.Add(-skew), until)
	if err == nil && r.Outcome == provider.NotFound && late && searching != nil {
		return provider.Result{}, searching
	}
	return r, err
}

func (c *Client) searched(ctx context.Context, budget time.Duration, op provider.Operation, amount int64) (provider.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	all := c.api.V1PaymentIntents.Search(ctx, &stripe.PaymentIntentSearchParams{
		SearchParams: stripe.SearchParams{Query: fmt.Sprintf("metadata[%q]:%q", metaReference, op.Reference)},
	})
	found := ""
	r, err := search(ctx, all, "search_result", func(i *stripe.PaymentIntent) bool { return of(op, i.Metadata) },
		func(i *stripe.PaymentIntent) provider.Result {
			found = i.ID
			return authorized(op, amount, i)
		})
	if err == nil {
		err = isA(all, "search_result")
	}
	if err != nil || r.Outcome == provider.NotFound || r.Outcome == provider.Succeeded {
		return r, err
	}
	// The index may have an older state of it.
	i, err := c.api.V1PaymentIntents.Retrieve(ctx, found, nil)
	if err != nil {
		return provider.Result{}, err
	}
	return authorized(op, amount, i), nil
}

// listed reads the list from a time on, up to until unless that is zero, newest first. It
// goes on with the pass that an earlier lookup could not end. What was made since that
// pass began comes before its beginning in the list, so a pass over that follows.
func (c *Client) listed(ctx context.Context, budget time.Duration, op provider.Operation, amount int64, from, until time.Time) (provider.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	p, resumed := c.passes.begun(op.Key)
	if !resumed {
		p = pass{from: from, began: c.now()}
	}
	for {
		r, last, err := c.listPass(ctx, op, amount, p, until)
		if err != nil {
			e, answered := errors.AsType[*stripe.Error](err)
			if answered && e.Code == stripe.ErrorCodeResourceMissing {
				c.passes.end(op.Key) // what it stopped at is gone: it has to begin again
				return provider.Result{}, errors.New("the list has changed")
			}
			p.after = last
			c.passes.keep(op.Key, p)
			return provider.Result{}, err
		}
		if r.Outcome != provider.NotFound || !resumed || !until.IsZero() && p.began.After(until.Add(skew)) {
			c.passes.end(op.Key)
			return r, nil
		}
		p, resumed = pass{from: p.began.Add(-skew), began: c.now()}, false
	}
}

// listPass gives the last id that it read, too.
func (c *Client) listPass(ctx context.Context, op provider.Operation, amount int64, p pass, until time.Time) (r provider.Result, last string, err error) {
	params := &stripe.PaymentIntentListParams{
		ListParams:   stripe.ListParams{Limit: new(int64(pageSize))},
		CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: p.from.Unix()},
	}
	if p.after != "" {
		params.StartingAfter = &p.after
	}
	if !until.IsZero() {
		params.CreatedRange.LesserThanOrEqual = until.Add(skew).Unix()
	}
	last = p.after
	all := c.api.V1PaymentIntents.List(ctx, params)
	r, err = search(ctx, all, "list", func(i *stripe.PaymentIntent) bool {
		if of(op, i.Metadata) {
			return true
		}
		last = i.ID
		return false
	}, func(i *stripe.PaymentIntent) provider.Result { return authorized(op, amount, i) })
	return r, last, err
}

// pass over a list that could not be read to its end by one lookup.
type pass struct {
	from  time.Time // what it reads was made since
	began time.Time
	after string // the id that it has come to
}

// mostPasses bounds what is kept of lookups that nobody repeats.
const mostPasses = 10_000

// passes are kept by the key of the operation that is looked for.
type passes struct {
	mu    sync.Mutex
	byKey map[string]pass
}

func (p *passes) begun(key string) (pass, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.byKey[key]
	return found, ok
}

func (p *passes) keep(key string, to pass) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byKey == nil {
		p.byKey = map[string]pass{}
	}
	if _, known := p.byKey[key]; !known && len(p.byKey) >= mostPasses {
		for other := range p.byKey { // any: it begins again
			delete(p.byKey, other)
			break
		}
	}
	p.byKey[key] = to
}

func (p *passes) end(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byKey, key)
}
