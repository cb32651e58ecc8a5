package stripe

import (
	"context"
	"encoding/json"
	"errors"
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

// Lookup reads what Stripe shows consistently after a write: an object by its id, and
// lists. What was just written appears in the search by metadata up to a minute later,
// and in an incident an hour (https://docs.stripe.com/search#data-freshness): its
// silence alone is no NotFound. A list that could not be read to its end is Unknown.
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
	if err != nil {
		r := unknown(false, "look up %s %s: %w", op.Type, op.Reference, cause(err))
		if e, ok := errors.AsType[*stripe.Error](err); ok {
			r.Code = astray(op, e)
		}
		return r
	}
	r.InFlight = false
	return r
}

func (c *Client) find(ctx context.Context, op provider.Operation, amount int64) (provider.Result, error) {
	switch op.Type {
	case provider.Authorization:
		return c.findAuthorization(ctx, op, amount)
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

// results of a list or of a search.
type results[T any] interface {
	All(ctx context.Context) stripe.Seq2[T, error]
	LastResponse() *stripe.APIResponse
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
