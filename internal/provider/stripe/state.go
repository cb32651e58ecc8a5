package stripe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"

	"payments/internal/provider"
)

// Inspect reads the PaymentIntent, and what was done to its charge. Without the id of
// one it searches by metadata, whose index may be a minute late.
func (c *Client) Inspect(ctx context.Context, p provider.Payment) (provider.State, error) {
	if p.Reference == "" {
		return provider.State{}, errors.New("inspect not sent: it needs a reference")
	}
	s, err := c.inspect(ctx, p)
	if err != nil {
		return provider.State{}, fmt.Errorf("inspect %s: %w", p.Reference, cause(err))
	}
	return s, nil
}

func (c *Client) inspect(ctx context.Context, p provider.Payment) (provider.State, error) {
	if p.Authorization != "" {
		i, err := c.intent(ctx, p.Authorization)
		if err != nil {
			return provider.State{}, err
		}
		if i.Metadata[metaReference] != p.Reference {
			return provider.State{}, provider.ErrOtherPayment
		}
		return c.stateOf(ctx, i)
	}
	searching, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	s := provider.State{Reference: p.Reference}
	for i, err := range c.api.V1PaymentIntents.Search(searching, &stripe.PaymentIntentSearchParams{
		SearchParams: stripe.SearchParams{Query: fmt.Sprintf("metadata[%q]:%q", metaReference, p.Reference)},
		Expand:       []*string{stripe.String("data.latest_charge.refunds")},
	}).All(searching) {
		if err != nil {
			return provider.State{}, err
		}
		one, err := c.stateOf(ctx, i)
		if err != nil {
			return provider.State{}, err
		}
		s.Authorizations, s.Captures = append(s.Authorizations, one.Authorizations...), append(s.Captures, one.Captures...)
		s.Refunds, s.Disputes = append(s.Refunds, one.Refunds...), append(s.Disputes, one.Disputes...)
	}
	return s, nil
}

func (c *Client) intent(ctx context.Context, id string) (*stripe.PaymentIntent, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	i, err := c.api.V1PaymentIntents.Retrieve(ctx, id, &stripe.PaymentIntentRetrieveParams{Expand: []*string{stripe.String("latest_charge.refunds")}})
	var e *stripe.Error
	switch {
	case errors.As(err, &e) && e.HTTPStatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%w: %w", provider.ErrUnknownID, cause(err))
	case err != nil:
		return nil, err
	case i.ID != id:
		return nil, errors.New("the provider answered with another PaymentIntent")
	}
	return i, nil
}

// stateOf reads what the PaymentIntent does not hold itself: the disputes of its
// charge, and more refunds than are given with it.
func (c *Client) stateOf(ctx context.Context, i *stripe.PaymentIntent) (provider.State, error) {
	s := provider.State{Reference: i.Metadata[metaReference], Authorizations: []provider.AuthorizationState{authorizationState(i)}}
	charge := i.LatestCharge
	// An authorization that was canceled has a refund at Stripe, of money that was never taken.
	if i.Status != stripe.PaymentIntentStatusSucceeded || charge == nil || charge.ID == "" {
		return s, nil
	}
	currency := strings.ToUpper(string(i.Currency))
	s.Captures = []provider.CaptureState{{
		ID: charge.ID, Key: i.Metadata[metaCapture], Authorization: i.ID, Amount: minorUnits(i.AmountReceived, currency), Currency: currency,
	}}
	refunds, err := c.refundsOf(ctx, charge)
	if err != nil {
		return provider.State{}, err
	}
	for _, r := range refunds {
		s.Refunds = append(s.Refunds, refundState(charge.ID, r))
	}
	if !charge.Disputed {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	disputes, err := whole(ctx, c.api.V1Disputes.List(ctx, &stripe.DisputeListParams{
		ListParams: stripe.ListParams{Limit: new(int64(pageSize))}, Charge: &charge.ID,
	}))
	if err != nil {
		return provider.State{}, err
	}
	for _, d := range disputes {
		s.Disputes = append(s.Disputes, disputeState(charge.ID, d))
	}
	return s, nil
}

// refundsOf gives the refunds that came with the charge, or lists them where some or all did not.
func (c *Client) refundsOf(ctx context.Context, charge *stripe.Charge) ([]*stripe.Refund, error) {
	if charge.Refunds != nil && charge.Refunds.Data != nil && !charge.Refunds.HasMore {
		newestLast := slices.Clone(charge.Refunds.Data)
		slices.Reverse(newestLast)
		return newestLast, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return whole(ctx, c.api.V1Refunds.List(ctx, &stripe.RefundListParams{
		ListParams: stripe.ListParams{Limit: new(int64(pageSize))}, Charge: &charge.ID,
	}))
}

// whole reads a list to its end and gives it oldest first, which at Stripe is last.
func whole[T any](ctx context.Context, list results[T]) (all []T, err error) {
	if _, err := search(ctx, list, "list", func(item T) bool {
		all = append(all, item)
		return false
	}, nil); err != nil {
		return nil, err
	}
	slices.Reverse(all)
	return all, nil
}

func authorizationState(i *stripe.PaymentIntent) provider.AuthorizationState {
	currency := strings.ToUpper(string(i.Currency))
	a := provider.AuthorizationState{
		ID: i.ID, Key: i.Metadata[metaKey], Amount: minorUnits(i.Amount, currency), Currency: currency, Created: time.Unix(i.Created, 0),
		Status: provider.AuthorizationDeclined,
	}
	switch i.Status {
	case stripe.PaymentIntentStatusRequiresCapture:
		a.Status = provider.AuthorizationHeld
	case stripe.PaymentIntentStatusSucceeded:
		a.Status = provider.AuthorizationCaptured
	case stripe.PaymentIntentStatusProcessing, stripe.PaymentIntentStatusRequiresConfirmation:
		a.Status = provider.AuthorizationPending
	case stripe.PaymentIntentStatusCanceled:
		a.Void = i.ID // a cancellation has no id of its own
		switch {
		case expired(i):
			a.Status = provider.AuthorizationExpired
		case i.LatestCharge != nil && i.LastPaymentError == nil:
			a.Status = provider.AuthorizationVoided
		}
	case stripe.PaymentIntentStatusRequiresAction, stripe.PaymentIntentStatusRequiresPaymentMethod:
	}
	if charge := i.LatestCharge; charge != nil && charge.PaymentMethodDetails != nil && charge.PaymentMethodDetails.Card != nil {
		if at := charge.PaymentMethodDetails.Card.CaptureBefore; at > 0 {
			a.ExpiresAt = time.Unix(at, 0)
		}
	}
	return a
}

func expired(i *stripe.PaymentIntent) bool {
	return i.CancellationReason == stripe.PaymentIntentCancellationReasonAutomatic ||
		i.CancellationReason == stripe.PaymentIntentCancellationReasonExpired
}

func refundState(charge string, r *stripe.Refund) provider.RefundState {
	currency := strings.ToUpper(string(r.Currency))
	out := provider.RefundState{
		ID: r.ID, Key: r.Metadata[metaKey], Capture: charge, Status: provider.RefundPending,
		Amount: minorUnits(r.Amount, currency), Currency: currency, Created: time.Unix(r.Created, 0),
	}
	switch r.Status {
	case stripe.RefundStatusSucceeded:
		out.Status = provider.RefundSucceeded
	case stripe.RefundStatusFailed, stripe.RefundStatusCanceled:
		out.Status, out.Code = provider.RefundFailed, "refund_failed"
	case stripe.RefundStatusPending, stripe.RefundStatusRequiresAction:
	}
	return out
}

// disputeState takes an inquiry for a dispute: it asks for an answer as well, and ends
// as won when it is closed.
func disputeState(charge string, d *stripe.Dispute) provider.DisputeState {
	currency := strings.ToUpper(string(d.Currency))
	out := provider.DisputeState{
		ID: d.ID, Capture: charge, Status: provider.DisputeOpen, Amount: minorUnits(d.Amount, currency), Currency: currency,
		Reason: provider.Printable(string(d.Reason), 64), Created: time.Unix(d.Created, 0),
	}
	switch d.Status {
	case stripe.DisputeStatusWon, stripe.DisputeStatusWarningClosed, stripe.DisputeStatusPrevented:
		out.Status = provider.DisputeWon
	case stripe.DisputeStatusLost:
		out.Status = provider.DisputeLost
	case stripe.DisputeStatusNeedsResponse, stripe.DisputeStatusUnderReview,
		stripe.DisputeStatusWarningNeedsResponse, stripe.DisputeStatusWarningUnderReview:
	}
	if out.Status == provider.DisputeOpen && d.EvidenceDetails != nil && d.EvidenceDetails.DueBy > 0 {
		out.RespondBy = time.Unix(d.EvidenceDetails.DueBy, 0)
	}
	return out
}
