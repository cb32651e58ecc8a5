package stripe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"

	"payments/internal/provider"
)

const (
	// keyLifetime is how long ago the first request of an operation may have
	// been made: after it Stripe forgets the key, and nothing is resent.
	keyLifetime = 25 * time.Hour
	// skew bounds how far Stripe's clock may be from ours.
	skew     = time.Minute
	pageSize = 100 // Stripe's most
)

// Lookup reads what Stripe shows consistently after a write: an object by
// its id, and lists. The search by metadata would be one request, but what was
// just written appears in it up to a minute later, and in an incident an hour
// (https://docs.stripe.com/search#data-freshness): its silence would be no
// NotFound. A list that could not be read to its end is Unknown. The search is
// for what came when no request was expected any more.
func (c *Client) Lookup(ctx context.Context, op provider.Operation) provider.Result {
	amount, refusal := stripeAmount(op)
	if refusal != "" {
		return provider.Result{Outcome: provider.NotFound} // such an operation is never sent
	}
	if op.Key == "" || op.Reference == "" || op.Parent == "" && op.Type != provider.Authorization {
		return unknown(false, "lookup not sent: it needs a key, a reference and what it acts on")
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := c.find(ctx, op, amount)
	var e *stripe.Error
	if errors.As(err, &e) && e.HTTPStatusCode == http.StatusNotFound && e.Code == stripe.ErrorCodeResourceMissing {
		return provider.Result{Outcome: provider.NotFound} // what it acts on does not exist
	}
	if err != nil {
		return unknown(false, "look up %s %s: %w", op.Type, op.Reference, cause(err))
	}
	r.InFlight = false
	return r
}

func (c *Client) find(ctx context.Context, op provider.Operation, amount int64) (provider.Result, error) {
	switch op.Type {
	case provider.Authorization:
		created := &stripe.RangeQueryParams{GreaterThanOrEqual: c.created(op.Reference).Add(-skew).Unix()}
		if !op.Until.IsZero() { // however long ago that was, and how much has been paid since
			created.LesserThanOrEqual = op.Until.Add(skew).Unix()
		}
		all := c.api.V1PaymentIntents.List(ctx, &stripe.PaymentIntentListParams{
			ListParams:   stripe.ListParams{Limit: new(int64(pageSize))},
			CreatedRange: created,
		})
		r, err := searchIntents(ctx, all, "list", op, amount)
		if err != nil || r.Outcome != provider.NotFound || op.Until.IsZero() || !c.now().After(op.Until.Add(skew)) {
			return r, err
		}
		return c.findLate(ctx, op, amount)
	case provider.Refund:
		all := c.api.V1Refunds.List(ctx, &stripe.RefundListParams{
			ListParams: stripe.ListParams{Limit: new(int64(pageSize))}, Charge: &op.Parent,
		})
		return search(ctx, all, "list", func(r *stripe.Refund) bool { return of(op, r.Metadata) },
			func(r *stripe.Refund) provider.Result { return refunded(op, amount, r) })
	case provider.Capture, provider.Void:
		i, err := c.api.V1PaymentIntents.Retrieve(ctx, op.Parent, nil)
		switch {
		case err != nil:
			return provider.Result{}, err
		case i.ID != op.Parent || i.Metadata[metaReference] != op.Reference:
			return another(op), nil
		case op.Type == provider.Capture && i.Metadata[metaCapture] == op.Key &&
			(i.Status == stripe.PaymentIntentStatusSucceeded || i.Status == stripe.PaymentIntentStatusProcessing):
			return captured(op, amount, i), nil
		// A cancellation has no metadata. Whoever asked for it, nothing is held
		// after it, which is all that a void is for.
		case op.Type == provider.Void && i.Status == stripe.PaymentIntentStatusCanceled:
			return voided(op, i), nil
		}
		return provider.Result{Outcome: provider.NotFound}, nil
	}
	return unknown(false, "%q is no type of operation", op.Type), nil
}

// findLate finds an authorization that was given after all that was expected, since
// its sender had stood still: at any time since, so that a list of it would be of all
// that was paid. Who asks for one asks again, and sees what the index did not have yet.
func (c *Client) findLate(ctx context.Context, op provider.Operation, amount int64) (provider.Result, error) {
	all := c.api.V1PaymentIntents.Search(ctx, &stripe.PaymentIntentSearchParams{
		SearchParams: stripe.SearchParams{Query: fmt.Sprintf("metadata[%q]:%q", metaReference, op.Reference)},
	})
	r, err := searchIntents(ctx, all, "search_result", op, amount)
	var e *stripe.Error
	// There is no search for accounts in India, nor for a restricted key without the right to it.
	if errors.As(err, &e) && (e.HTTPStatusCode == http.StatusBadRequest || e.HTTPStatusCode == http.StatusForbidden) {
		return provider.Result{Outcome: provider.NotFound}, nil
	}
	return r, err
}

// results of a list or of a search.
type results[T any] interface {
	All(ctx context.Context) stripe.Seq2[T, error]
	LastResponse() *stripe.APIResponse
}

func searchIntents(ctx context.Context, all results[*stripe.PaymentIntent], object string, op provider.Operation, amount int64) (provider.Result, error) {
	return search(ctx, all, object, func(i *stripe.PaymentIntent) bool { return of(op, i.Metadata) },
		func(i *stripe.PaymentIntent) provider.Result { return authorized(op, amount, i) })
}

func search[T any](ctx context.Context, all results[T], object string, matches func(T) bool, result func(T) provider.Result) (provider.Result, error) {
	for item, err := range all.All(ctx) {
		if err != nil {
			return provider.Result{}, err
		}
		if matches(item) {
			return result(item), nil
		}
	}
	return provider.Result{Outcome: provider.NotFound}, isA(all, object)
}

// isA refuses an answer that is no list: it reads as an empty one.
func isA(answer interface{ LastResponse() *stripe.APIResponse }, object string) error {
	var last struct{ Object string }
	if r := answer.LastResponse(); r == nil || json.Unmarshal(r.RawJSON, &last) != nil || last.Object != object {
		return errors.New("the answer is not a " + object)
	}
	return nil
}

// created is when the payment was made, which is before any request for it: a
// reference is a TypeID of a UUIDv7 (https://github.com/jetify-com/typeid), and
// the first ten characters of its suffix are its milliseconds since 1970. For
// any other reference it is as long ago as can be.
func (c *Client) created(reference string) time.Time {
	const alphabet, suffix, ofTime = "0123456789abcdefghjkmnpqrstvwxyz", 26, 10
	oldest := c.now().Add(-keyLifetime)
	_, id, found := strings.Cut(reference, "_")
	if !found || len(id) != suffix {
		return oldest
	}
	var ms int64
	for _, r := range id[:ofTime] {
		digit := strings.IndexRune(alphabet, r)
		if digit < 0 {
			return oldest
		}
		ms = ms<<5 | int64(digit)
	}
	return time.UnixMilli(ms)
}
