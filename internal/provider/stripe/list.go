package stripe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"

	"payments/internal/provider"
)

// The parts of List, in the order in which it reads them. A cursor is a part's name, a
// colon and the id behind which the part goes on.
const (
	listIntents  = "intents"
	listRefunds  = "refunds"
	listDisputes = "disputes"
)

// List reads the PaymentIntents made in the span, then those of the refunds and of the
// disputes made in it: a payment of last month can be refunded today. What the account
// has of others than this service, without our metadata, is left out.
func (c *Client) List(ctx context.Context, from, to time.Time, cursor string) (provider.Page, error) {
	part, after, found := strings.Cut(cursor, ":")
	if cursor == "" {
		part, found = listIntents, true
	}
	if !found {
		return provider.Page{}, errors.New("list payments: this is no cursor of a list")
	}
	span := &stripe.RangeQueryParams{GreaterThanOrEqual: from.Unix(), LesserThan: to.Add(time.Second - 1).Unix()}
	limited := stripe.ListParams{Limit: new(int64(pageSize))}
	if after != "" {
		limited.StartingAfter = &after
	}
	reading, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var page provider.Page
	var err error
	switch part {
	case listIntents:
		page, err = listed(ctx, c.api.V1PaymentIntents.List(reading, &stripe.PaymentIntentListParams{
			ListParams: limited, CreatedRange: span, Expand: []*string{stripe.String("data.latest_charge.refunds")},
		}), part, listRefunds, func(i *stripe.PaymentIntent) (string, string, func() (*stripe.PaymentIntent, error)) {
			return i.ID, i.ID, func() (*stripe.PaymentIntent, error) { return i, nil }
		}, c.stateOf)
	case listRefunds:
		page, err = listed(ctx, c.api.V1Refunds.List(reading, &stripe.RefundListParams{ListParams: limited, CreatedRange: span}),
			part, listDisputes, func(r *stripe.Refund) (string, string, func() (*stripe.PaymentIntent, error)) {
				return r.ID, idOf(r.PaymentIntent), func() (*stripe.PaymentIntent, error) { return c.intent(ctx, r.PaymentIntent.ID) }
			}, c.stateOf)
	case listDisputes:
		page, err = listed(ctx, c.api.V1Disputes.List(reading, &stripe.DisputeListParams{ListParams: limited, CreatedRange: span}),
			part, "", func(d *stripe.Dispute) (string, string, func() (*stripe.PaymentIntent, error)) {
				return d.ID, idOf(d.PaymentIntent), func() (*stripe.PaymentIntent, error) { return c.intent(ctx, d.PaymentIntent.ID) }
			}, c.stateOf)
	default:
		err = errors.New("this is no cursor of a list")
	}
	if err != nil {
		return provider.Page{}, fmt.Errorf("list payments: %w", cause(err))
	}
	return page, nil
}

func idOf(i *stripe.PaymentIntent) string {
	if i == nil {
		return ""
	}
	return i.ID
}

// listed makes a page of one of Stripe's. of names an item, its PaymentIntent, and how
// to read that.
func listed[T any](ctx context.Context, list *stripe.V1List[T], part, next string,
	of func(T) (id, intent string, read func() (*stripe.PaymentIntent, error)),
	state func(context.Context, *stripe.PaymentIntent) (provider.State, error),
) (page provider.Page, err error) {
	if list.Err() != nil {
		return page, list.Err()
	}
	if err := isA(list, "list"); err != nil {
		return page, err
	}
	last, seen := "", map[string]bool{"": true}
	for _, item := range list.Data() {
		id, intent, read := of(item)
		last = id
		if seen[intent] {
			continue
		}
		seen[intent] = true
		i, err := read()
		if err != nil {
			return page, err
		}
		if i.Metadata[metaReference] == "" || i.Metadata[metaType] != string(provider.Authorization) {
			continue
		}
		s, err := state(ctx, i)
		if err != nil {
			return page, err
		}
		page.States = append(page.States, s)
	}
	switch {
	case list.Meta().HasMore && last != "":
		page.Next = part + ":" + last
	case next != "":
		page.Next = next + ":"
	}
	return page, nil
}
